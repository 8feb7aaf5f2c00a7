// SPDX-License-Identifier: Apache-2.0
// Marching cubes over regions of 2x2x2 blocks, as in recon3d_ros/mapping/marching.py. Triangles come in the same order;
// vertices stand in the order of the edges they lie on, not in that of first use.

enum { CELLS = 16, CORNERS = 17, CELLS_OF_REGION = 4096, EDGES_OF_REGION = 17 * 17 * 17 * 3 };

// One thread for each of the 27 blocks that the corners of a region lie in: its slot, -1 if there is none.
extern "C" __global__ void find_around(Pool pool, const int* regions, int number, int* around) {
    int64 i = thread_number();
    if (i >= (int64)number * 27) return;
    const int* region = regions + 3 * (i / 27);
    int b = (int)(i % 27);
    around[i] = find(pool, 2 * region[0] + b % 3, 2 * region[1] + b / 3 % 3, 2 * region[2] + b / 9);
}

// Index of the voxel at a corner of a region, -1 if its block is missing.
__device__ inline int64 voxel_at(const int* around, int x, int y, int z) {
    int slot = around[(z / SIDE * 3 + y / SIDE) * 3 + x / SIDE];
    return slot < 0 ? -1 : (int64)slot * VOXELS + (z % SIDE * SIDE + y % SIDE) * SIDE + x % SIDE;
}

__device__ inline int edge_number(const int* edge, int x, int y, int z) {
    return (((z + edge[2]) * CORNERS + y + edge[1]) * CORNERS + x + edge[0]) * 3 + edge[3];
}

// One thread a cell: its case, its number of triangles, and a mark on each edge that the surface crosses.
extern "C" __global__ void count(
    Pool pool, const int* around, int number, int min_weight, const signed char* table, const int* edges,
    unsigned char* cases, unsigned char* triangles, bool* crossed) {
    int64 i = thread_number();
    if (i >= (int64)number * CELLS_OF_REGION) return;
    int64 region = i / CELLS_OF_REGION;
    int x = (int)(i % CELLS), y = (int)(i / CELLS % CELLS), z = (int)(i / (CELLS * CELLS) % CELLS);
    int number_of_case = 0;
    for (int c = 0; c < 8; ++c) {
        int64 voxel = voxel_at(around + 27 * region, x + (c & 1), y + (c >> 1 & 1), z + (c >> 2));
        if (voxel < 0 || pool.weight[voxel] < min_weight) return;  // the arrays come filled with zeros
        number_of_case |= (pool.tsdf[voxel] < 0) << c;
    }
    const signed char* row = table + 16 * number_of_case;
    int corners = 0;
    for (; corners < 15 && row[corners] >= 0; ++corners)
        crossed[region * EDGES_OF_REGION + edge_number(edges + 4 * row[corners], x, y, z)] = true;
    cases[i] = (unsigned char)number_of_case;
    triangles[i] = (unsigned char)(corners / 3);
}

// One thread an edge: position and colour where the surface crosses it. `ends`: running number of crossed edges.
extern "C" __global__ void fill_vertices(
    Pool pool, const int* around, const int* regions, int number, const bool* crossed, const int* ends, double size,
    float* vertices, unsigned char* colours) {
    int64 i = thread_number();
    if (i >= (int64)number * EDGES_OF_REGION || !crossed[i]) return;
    int64 region = i / EDGES_OF_REGION, vertex = ends[i] - 1;
    int edge = (int)(i % EDGES_OF_REGION), axis = edge % 3;
    int at[3] = {edge / 3 % CORNERS, edge / (3 * CORNERS) % CORNERS, edge / (3 * CORNERS * CORNERS)};
    const int* slots = around + 27 * region;
    int64 a = voxel_at(slots, at[0], at[1], at[2]);
    int64 b = voxel_at(slots, at[0] + (axis == 0), at[1] + (axis == 1), at[2] + (axis == 2));
    double low = pool.tsdf[a], high = pool.tsdf[b], share = low / (low - high);
    // Kept off the corners: a vertex on a corner would coincide with those of the other edges there.
    share = share < 1.0 / 256 ? 1.0 / 256 : share > 255.0 / 256 ? 255.0 / 256 : share;
    for (int k = 0; k < 3; ++k) {
        int64 corner = (int64)regions[3 * region + k] * CELLS + at[k];
        vertices[3 * vertex + k] = (float)((corner + (axis == k ? share : 0.0)) * size);
        double before = pool.colour[3 * a + k], after = pool.colour[3 * b + k];
        colours[3 * vertex + k] = (unsigned char)(before + (after - before) * share + 0.5);
    }
}

// One thread a cell: its triangles, as numbers of vertices within the region.
extern "C" __global__ void fill_triangles(
    int number, const unsigned char* cases, const unsigned char* triangles, const int* triangle_ends,
    const int* vertex_ends, const signed char* table, const int* edges, int* out) {
    int64 i = thread_number();
    if (i >= (int64)number * CELLS_OF_REGION || !triangles[i]) return;
    int64 region = i / CELLS_OF_REGION;
    int x = (int)(i % CELLS), y = (int)(i / CELLS % CELLS), z = (int)(i / (CELLS * CELLS) % CELLS);
    const int* ends = vertex_ends + region * EDGES_OF_REGION;
    int before = region ? ends[-1] : 0;
    int64 first = 3 * ((int64)triangle_ends[i] - triangles[i]);
    for (int k = 0; k < 3 * triangles[i]; ++k)
        out[first + k] = ends[edge_number(edges + 4 * table[16 * cases[i] + k], x, y, z)] - 1 - before;
}
