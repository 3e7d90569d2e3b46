# Code for compute capability 12.x is that of its family, which has the block-scaled instructions: an
# architecture that nvcc has since 12.9 and CMake 3.25 does not know. Code for sm_120 itself would do
# without them, and must not lie beside it for the driver to choose from.
set(block_scaled_code "")
if(CMAKE_CUDA_ARCHITECTURES MATCHES "all|native")
  message(FATAL_ERROR "MICROMIX_CUDA_ARCHITECTURES: found ${CMAKE_CUDA_ARCHITECTURES}, expected numbers such as 80-real;90;120")
endif()
if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.9)
  set(block_scaled_code --generate-code=arch=compute_120f,code=sm_120f)
  list(FILTER CMAKE_CUDA_ARCHITECTURES EXCLUDE REGEX "^12[0-9]")
  if(NOT CMAKE_CUDA_ARCHITECTURES STREQUAL MICROMIX_CUDA_ARCHITECTURES)
    add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:${block_scaled_code}>)
    set(block_scaled_everywhere ON)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF)
  endif()
endif()

# SOURCE of TARGET, in this folder, has kernels with these instructions: they are built whatever the
# architectures.
function(micromix_block_scaled target source)
  if(block_scaled_code AND NOT block_scaled_everywhere)
    set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/${source} TARGET_DIRECTORY ${target}
                                PROPERTIES COMPILE_OPTIONS ${block_scaled_code})
  endif()
endfunction()
