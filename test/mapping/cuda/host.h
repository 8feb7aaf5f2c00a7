// SPDX-License-Identifier: Apache-2.0
// What the kernels need of CUDA, for a compiler of the host. Groups are shared out among real threads, so that the kernels
// meet each other in the middle of their work as on a GPU, though not in such numbers.
#include <cmath>
#include <cstddef>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __device__

enum { WORKERS = 4 };

struct Index {
    unsigned x;
};
static thread_local Index blockIdx, threadIdx, blockDim;

template <class T>
static T atomicAdd(T* place, T more) {
    return __atomic_fetch_add(place, more, __ATOMIC_RELAXED);
}

template <class T>
static T atomicCAS(T* place, T expected, T value) {
    std::this_thread::yield();  // what was read before may have become wrong
    __atomic_compare_exchange_n(place, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

// Run a kernel. Arguments come as pointers to values, as cuLaunchKernel takes them.
template <class... Arguments, std::size_t... I>
static void share_out(
    void (*kernel)(Arguments...), int groups, int threads, void** at, std::index_sequence<I...>) {
    auto work = [=](int worker) {
        blockDim.x = threads;
        for (blockIdx.x = worker; blockIdx.x < (unsigned)groups; blockIdx.x += WORKERS)
            for (threadIdx.x = 0; threadIdx.x < (unsigned)threads; ++threadIdx.x) kernel(*(Arguments*)at[I]...);
    };
    std::vector<std::thread> workers;
    for (int worker = 0; worker < WORKERS; ++worker) workers.emplace_back(work, worker);
    for (auto& worker : workers) worker.join();
}

template <class... Arguments>
static void share_out(void (*kernel)(Arguments...), int groups, int threads, void** at) {
    share_out(kernel, groups, threads, at, std::index_sequence_for<Arguments...>());
}

#define LAUNCHER(kernel)                                                         \
    extern "C" void launch_##kernel(int groups, int threads, void** arguments) { \
        share_out(kernel, groups, threads, arguments);                           \
    }
