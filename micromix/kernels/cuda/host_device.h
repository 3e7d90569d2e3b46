// Functions for both sides of a CUDA source, in headers that C++ sources include too.
#pragma once

#ifdef __CUDACC__
#define MICROMIX_HOST_DEVICE __host__ __device__
#else
#define MICROMIX_HOST_DEVICE
#endif

namespace micromix::kernels::cuda {

inline constexpr int kWarp = 32;  // threads

}  // namespace micromix::kernels::cuda
