# The libraries the project stands on; each is a Debian package (scripts/setup installs them). Also
# installed beside micromixConfig.cmake, so that find_package(micromix) finds the same ones.
include(CMakeFindDependencyMacro)
find_dependency(PkgConfig)
find_dependency(Threads)
find_dependency(OpenMP COMPONENTS CXX)
find_dependency(nlohmann_json)
find_dependency(fmt)
foreach(module libpcre2-8 libutf8proc sentencepiece libxxhash openblas)
  if(NOT TARGET PkgConfig::${module})
    pkg_check_modules(${module} REQUIRED IMPORTED_TARGET ${module})
  endif()
endforeach()
