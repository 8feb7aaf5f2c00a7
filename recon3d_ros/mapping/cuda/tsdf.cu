// SPDX-License-Identifier: Apache-2.0
// Integration of a depth image, as in recon3d_ros/mapping/tsdf.py.

struct View {
    double map_cam[12], cam_map[12];  // rows of the 3x4 transforms
    double fx, fy, cx, cy;
    double voxel, truncation, far, spread, widest;
    int width, height;
};

__device__ inline double rotated(const double* T, int row, double x, double y, double z) {
    return T[4 * row] * x + T[4 * row + 1] * y + T[4 * row + 2] * z;
}

__device__ inline double moved(const double* T, int row, double x, double y, double z) {
    return rotated(T, row, x, y, z) + T[4 * row + 3];
}

// Half width of the band around a measured depth.
__device__ inline double half_width(const View& view, double depth) {
    double noisy = view.spread * depth * depth;
    if (view.widest < noisy) noisy = view.widest;
    return view.truncation > noisy ? view.truncation : noisy;
}

// One thread a ray, every stride-th pixel: walk through the truncation band in half-block steps and list the blocks met.
// Those that are not in the pool get a place in the hash and are noted in `fresh`, at most `room` of them.
extern "C" __global__ void touch(
    Pool pool, View view, const float* depth, int stride, int columns, int rays, int64 stamp, int room, int* listed,
    int* fresh, int* counts) {
    int64 ray = thread_number();
    if (ray >= rays) return;
    int v = stride / 2 + (int)(ray / columns) * stride, u = stride / 2 + (int)(ray % columns) * stride;
    double d = depth[(int64)v * view.width + u];
    if (!(d > 0 && d <= view.far)) return;
    double x = (u - view.cx) / view.fx, y = (v - view.cy) / view.fy;
    const double* T = view.map_cam;
    double per_unit = 1.0 / (SIDE * view.voxel), half = half_width(view, d);  // blocks
    double dx = rotated(T, 0, x, y, 1.0) * per_unit, dy = rotated(T, 1, x, y, 1.0) * per_unit;
    double dz = rotated(T, 2, x, y, 1.0) * per_unit;
    int steps = (int)ceil(4 * half * sqrt(x * x + y * y + 1) * per_unit);
    double step = 2 * half / steps;
    int64 last = -1;
    for (int i = 0; i <= steps; ++i) {
        double z = d - half + i * step;
        if (z < 0) z = 0;
        int bx = (int)floor(T[3] * per_unit + z * dx + 0.5 / SIDE);
        int by = (int)floor(T[7] * per_unit + z * dy + 0.5 / SIDE);
        int bz = (int)floor(T[11] * per_unit + z * dz + 0.5 / SIDE);
        int64 key = pack(bx, by, bz);
        if (key == last) continue;
        last = key;
        bool missing, put_in = *(volatile int*)(counts + FRESH) < room;
        int64 place = claim(pool, key, put_in, &missing);
        if (missing || place < 0) {
            int n = atomicAdd(counts + FRESH, 1);
            if (n < room) fresh[n] = (int)place;
            continue;
        }
        int slot = pool.slots[place];
        if (slot < 0) continue;  // new in this integration: noted by the thread that brought it
        int64 seen = pool.last_seen[slot];
        if (seen != stamp &&
            atomicCAS((uint64*)(pool.last_seen + slot), (uint64)seen, (uint64)stamp) == (uint64)seen)
            listed[atomicAdd(counts + LISTED, 1)] = slot;
    }
}

// One thread a slot ever used: list the blocks not listed yet whose centre lies in front of the depth measured there.
extern "C" __global__ void carve(
    Pool pool, View view, const float* depth, int used, int64 stamp, int* listed, int* counts) {
    int64 slot = thread_number();
    if (slot >= used || !pool.alive[slot] || pool.last_seen[slot] == stamp) return;
    const int* at = pool.coords + 3 * slot;
    const double* T = view.cam_map;
    const double centre = (SIDE - 1) / 2.0;
    double x = (at[0] * SIDE + centre) * view.voxel;
    double y = (at[1] * SIDE + centre) * view.voxel;
    double z = (at[2] * SIDE + centre) * view.voxel;
    double pz = moved(T, 2, x, y, z);
    if (!(pz > 0 && pz <= view.far)) return;
    double u = floor(view.fx * moved(T, 0, x, y, z) / pz + view.cx + 0.5);
    double v = floor(view.fy * moved(T, 1, x, y, z) / pz + view.cy + 0.5);
    if (!(u >= 0 && u < view.width && v >= 0 && v < view.height)) return;
    double d = depth[(int64)v * view.width + (int64)u];
    if (!(d > 0 && pz < d + half_width(view, d))) return;
    pool.last_seen[slot] = stamp;
    listed[atomicAdd(counts + LISTED, 1)] = (int)slot;
}

__device__ inline unsigned char blend(unsigned char old, unsigned char now, float rate) {
    return (unsigned char)((float)old + ((float)now - (float)old) * rate + 0.5f);
}

// One more view in the mean of the colour; returns whether it changed.
__device__ inline bool average_colour(unsigned char* colour, const unsigned char* pixel, int views) {
    float rate = 1.0f / (float)(views + 1);
    bool changed = false;
    for (int c = 0; c < 3; ++c) {
        unsigned char mixed = blend(colour[c], pixel[c], rate);
        changed |= mixed != colour[c];
        colour[c] = mixed;
    }
    return changed;
}

// Running mean of the distance; returns whether it changed.
__device__ inline bool average_distance(short* tsdf, float value, int past, int gain) {
    float old = (float)*tsdf;
    value = value < 32767.0f ? value : 32767.0f;
    value = value > -32767.0f ? value : -32767.0f;
    float step = (value - old) * ((float)gain / (float)(past + gain));
    short mixed = (short)floorf(old + step + 0.5f);
    bool changed = mixed != *tsdf;
    *tsdf = mixed;
    return changed;
}

// Number of the pixel nearest to a voxel, -1 outside the image, and the voxel's depth.
__device__ inline int project(const View& view, const int* block, int voxel, float* depth) {
    const double* T = view.cam_map;
    double x = block[0] * SIDE * view.voxel, y = block[1] * SIDE * view.voxel, z = block[2] * SIDE * view.voxel;
    float vx = (float)(voxel % SIDE), vy = (float)(voxel / SIDE % SIDE), vz = (float)(voxel / (SIDE * SIDE));
    float p[3];
    for (int r = 0; r < 3; ++r)
        p[r] = (float)moved(T, r, x, y, z) +
               ((float)(T[4 * r] * view.voxel) * vx + (float)(T[4 * r + 1] * view.voxel) * vy +
                (float)(T[4 * r + 2] * view.voxel) * vz);
    float inverse = 1.0f / p[2];
    float u = (float)view.fx * p[0] * inverse + (float)(view.cx + 0.5);
    float v = (float)view.fy * p[1] * inverse + (float)(view.cy + 0.5);
    *depth = p[2];
    bool inside = p[2] > 0 && p[2] <= (float)view.far && u >= 0 && u < view.width && v >= 0 && v < view.height;
    return inside ? (int)v * view.width + (int)u : -1;
}

// A group of 512 threads a listed block, one thread a voxel: running means of the distance, weighted, and of the colour, over
// the views that saw the surface there. Marks the block dirty where its surface may differ: a distance or colour changed, or
// a weight crossed `min_weight`.
extern "C" __global__ void update(
    Pool pool, View view, const float* depth, const unsigned char* colours, const unsigned char* weights,
    const int* listed, int min_weight) {
    int64 slot = listed[blockIdx.x], voxel = slot * VOXELS + threadIdx.x;
    float z;
    int pixel = project(view, pool.coords + 3 * slot, threadIdx.x, &z);
    if (pixel < 0) return;
    float d = depth[pixel], distance = d - z;
    float noisy = (float)view.spread * d * d, widest = (float)view.widest;
    noisy = widest < noisy ? widest : noisy;
    if (!(d > 0 && (distance >= (float)-view.truncation || distance >= -noisy))) return;
    const int cap = 100 * UNIT_WEIGHT;
    int held = pool.weight[voxel], past = held >> VIEW_BITS, views = held & MOST_VIEWS, sum = past + weights[pixel];
    float value = distance * (float)(32767.0 / view.truncation);
    bool changed = average_distance(pool.tsdf + voxel, value, past, weights[pixel]);
    // Far in front of the surface a pixel shows what lies behind: it colours a voxel only until a better one comes.
    bool near = fabsf(distance) < (float)view.voxel;
    if (near || past == 0) {
        changed |= average_colour(pool.colour + 3 * voxel, colours + 3 * (int64)pixel, views);
        views += near && views < MOST_VIEWS;
    }
    int total = (sum < cap ? sum : cap) << VIEW_BITS | views;
    changed |= (held < min_weight) != (total < min_weight);
    pool.weight[voxel] = (unsigned short)total;
    if (changed) pool.dirty[slot] = true;
}

// One thread a ray: count the voxels that the depth image occupies (counts[0]) and those of them with at least `weight`
// (counts[1]), each once; `taken` is an empty hash for their keys.
extern "C" __global__ void count_seen(
    Pool pool, View view, const float* depth, int stride, int columns, int rays, int weight, int64* taken, int64 table,
    int* counts) {
    int64 ray = thread_number();
    if (ray >= rays) return;
    int v = stride / 2 + (int)(ray / columns) * stride, u = stride / 2 + (int)(ray % columns) * stride;
    double d = depth[(int64)v * view.width + u];
    if (!(d > 0 && d <= view.far)) return;
    double x = (u - view.cx) / view.fx * d, y = (v - view.cy) / view.fy * d;
    int voxel[3];
    for (int r = 0; r < 3; ++r) voxel[r] = (int)floor(moved(view.map_cam, r, x, y, d) / view.voxel + 0.5);
    bool is_new;
    Pool met = pool;
    met.keys = taken, met.table = table;
    claim(met, pack(voxel[0], voxel[1], voxel[2]), true, &is_new);
    if (!is_new) return;
    atomicAdd(counts, 1);
    int64 slot = find(pool, voxel[0] >> 3, voxel[1] >> 3, voxel[2] >> 3);
    if (slot < 0) return;
    int inside = ((voxel[2] & 7) * SIDE + (voxel[1] & 7)) * SIDE + (voxel[0] & 7);
    if (pool.weight[slot * VOXELS + inside] >= weight) atomicAdd(counts + 1, 1);
}
