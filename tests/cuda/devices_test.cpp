// Where these tests run a GPU is asked for, so none is a failure.
#include "micromix/kernels/cuda/devices.h"

#include <algorithm>
#include <cstdlib>

#include "micromix/kernels/cuda/backend.h"
#include "tests/testing.h"

namespace micromix::kernels::cuda {
namespace {

TEST(Devices, OneCanBeUsed) {
  const std::vector<GpuInfo> gpus = list_gpus();
  ASSERT_FALSE(gpus.empty()) << why_no_gpus();
  EXPECT_EQ(why_no_gpus(), "");
  const auto usable = std::find_if(gpus.begin(), gpus.end(),
                                   [](const GpuInfo& gpu) { return gpu.problem.empty(); });
  ASSERT_NE(usable, gpus.end()) << gpus.front().name << ": " << gpus.front().problem;
  EXPECT_NE(usable->name, "");
  EXPECT_GE(usable->major, 8);
  EXPECT_GT(usable->multiprocessors, 0);
  EXPECT_GT(usable->free_bytes, 0);
  EXPECT_GE(usable->total_bytes, usable->free_bytes);
  for (mx::Format weight : mx::kOperandFormats) {
    EXPECT_NE(product_of(*usable, weight, std::nullopt), "");
    for (mx::Format activation : mx::kOperandFormats) {
      EXPECT_NE(product_of(*usable, weight, activation), "");
    }
  }
}

TEST(Devices, ProductsAreChosenByName) {
  ::setenv("MICROMIX_CUDA_PRODUCTS", "exact-mma-sync", 1);
  EXPECT_EQ(&cuda_backend(), &cuda_backend(CudaProducts::kExactMmaSync));
  ::setenv("MICROMIX_CUDA_PRODUCTS", "fast", 1);
  const std::string error = testing::error_of([] { cuda_backend(); });
  ::unsetenv("MICROMIX_CUDA_PRODUCTS");
  EXPECT_EQ(error,
            "MICROMIX_CUDA_PRODUCTS: found 'fast', expected one of: exact, exact-mma-sync, "
            "block-scaled");
}

}  // namespace
}  // namespace micromix::kernels::cuda
