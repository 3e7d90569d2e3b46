// Programmatic dependent launch (sm_90): a grid may begin while the one ahead of it on the stream
// still runs. Both calls do nothing in a grid launched without the attribute, or before sm_90.
#pragma once

namespace micromix::kernels::cuda {

// Lets the next grid begin.
__device__ inline void allow_next_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Waits until the grids ahead have ended and their writes are visible. Nothing that they write may
// be read, and nothing that they read written, before.
__device__ inline void wait_for_previous_grid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace micromix::kernels::cuda
