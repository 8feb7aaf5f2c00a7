// SPDX-License-Identifier: Apache-2.0
// The pool of recon3d_ros/mapping/blocks.py on a GPU: the same arrays, the same hash, filled by many threads at once.
//
// No kernel here or in the other files waits for another thread: what has to be complete for the next step is a kernel of
// its own. Sums of products are written in the order of the numba kernels and compiled without fused multiplications, so
// that both give the same bits.

typedef long long int64;
typedef unsigned long long uint64;

enum { SIDE = 8, VOXELS = 512, LIMIT = 1 << 20, UNIT_WEIGHT = 64, VIEW_BITS = 3, MOST_VIEWS = 7 };

// Places in the counters of one integration: blocks listed, blocks that were not in the pool.
enum { LISTED, FRESH };

struct Pool {
    int64* keys;             // [table], -1 = empty
    int* slots;              // [table], -1 = not given out yet
    short* tsdf;             // [C,512]
    unsigned short* weight;  // [C,512]
    unsigned char* colour;   // [C,512,3]
    int* coords;             // [C,3]
    bool* alive;             // [C]
    int64* last_seen;        // [C]
    bool* dirty;             // [C]
    int64 table;             // a power of two
};

__device__ inline int64 thread_number() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline int64 pack(int x, int y, int z) {
    const int64 bits = 2 * LIMIT - 1;
    return (((int64)x + LIMIT) & bits) << 42 | (((int64)y + LIMIT) & bits) << 21 | (((int64)z + LIMIT) & bits);
}

__device__ inline int64 first_place(const Pool& pool, int64 key) {
    uint64 mixed = (uint64)(key ^ (key >> 31)) * 0x7FB5D329728EA185ull;
    return ((int64)mixed ^ ((int64)mixed >> 29)) & (pool.table - 1);
}

// Slot of a block, -1 if there is none.
__device__ inline int find(const Pool& pool, int x, int y, int z) {
    int64 key = pack(x, y, z), place = first_place(pool, key);
    for (int64 n = 0; n < pool.table && pool.keys[place] != -1; ++n) {
        if (pool.keys[place] == key) return pool.slots[place];
        place = (place + 1) & (pool.table - 1);
    }
    return -1;
}

// Place of a key in the hash; a missing one is put in if wanted. -1 if it is missing and stays so. Of the threads that bring
// the same key one alone is told that it was missing.
__device__ inline int64 claim(const Pool& pool, int64 key, bool put_in, bool* was_missing) {
    int64 place = first_place(pool, key);
    *was_missing = false;
    for (int64 n = 0; n < pool.table; ++n) {
        int64 held = *(volatile int64*)(pool.keys + place);
        if (held == -1) {
            if (!put_in) return -1;
            held = (int64)atomicCAS((uint64*)(pool.keys + place), (uint64)-1, (uint64)key);
            *was_missing = held == -1;
        }
        if (*was_missing || held == key) return place;
        place = (place + 1) & (pool.table - 1);
    }
    return -1;
}

// One thread a slot ever used: put the living blocks into an empty hash.
extern "C" __global__ void rehash(Pool pool, int used) {
    int64 slot = thread_number();
    if (slot >= used || !pool.alive[slot]) return;
    const int* at = pool.coords + 3 * slot;
    bool missing;
    int64 place = claim(pool, pack(at[0], at[1], at[2]), true, &missing);
    pool.slots[place] = (int)slot;
}

// A group of 512 threads a block: make the blocks whose keys stand at the places `fresh`, first in slots given back.
extern "C" __global__ void make_blocks(
    Pool pool, const int* fresh, const int* free, int given_back, int used, int64 stamp, int* listed, int* counts) {
    int i = blockIdx.x, place = fresh[i];
    int64 slot = i < given_back ? free[given_back - 1 - i] : used + i - given_back;
    int64 voxel = slot * VOXELS + threadIdx.x;
    pool.tsdf[voxel] = 32767;
    pool.weight[voxel] = 0;
    for (int c = 0; c < 3; ++c) pool.colour[3 * voxel + c] = 0;
    if (threadIdx.x) return;
    int64 key = pool.keys[place], mask = 2 * LIMIT - 1;
    pool.slots[place] = (int)slot;
    pool.coords[3 * slot] = (int)(key >> 42) - LIMIT;
    pool.coords[3 * slot + 1] = (int)(key >> 21 & mask) - LIMIT;
    pool.coords[3 * slot + 2] = (int)(key & mask) - LIMIT;
    pool.alive[slot] = true;
    pool.last_seen[slot] = stamp;
    pool.dirty[slot] = true;  // that it is there may be a change, even if nothing is written to it
    listed[atomicAdd(counts + LISTED, 1)] = (int)slot;
}

// A group of 512 threads a slot ever used: mark the blocks that the other pool lacks or holds with another surface.
extern "C" __global__ void compare(Pool pool, Pool other, int min_weight, bool* differing) {
    int64 slot = blockIdx.x;
    if (!pool.alive[slot]) return;
    const int* at = pool.coords + 3 * slot;
    int64 same = find(other, at[0], at[1], at[2]);
    int64 a = slot * VOXELS + threadIdx.x, b = same * VOXELS + threadIdx.x;
    bool differs = same < 0;
    if (!differs) {
        differs = pool.tsdf[a] != other.tsdf[b] || (pool.weight[a] < min_weight) != (other.weight[b] < min_weight);
        for (int c = 0; c < 3; ++c) differs |= pool.colour[3 * a + c] != other.colour[3 * b + c];
    }
    if (differs) differing[slot] = true;
}

// One thread a slot that the other pool ever used: mark the blocks that this one lacks.
extern "C" __global__ void find_lacking(Pool pool, Pool other, int used, bool* lacking) {
    int64 slot = thread_number();
    if (slot >= used || !other.alive[slot]) return;
    const int* at = other.coords + 3 * slot;
    lacking[slot] = find(pool, at[0], at[1], at[2]) < 0;
}
