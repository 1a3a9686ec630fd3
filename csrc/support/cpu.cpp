#include "support/cpu.h"

namespace ltm {

std::vector<std::string> cpu_features() {
    std::vector<std::string> found;
#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
    __builtin_cpu_init();
    // The builtin takes literals only.
    if (__builtin_cpu_supports("sse3")) found.emplace_back("sse3");
    if (__builtin_cpu_supports("ssse3")) found.emplace_back("ssse3");
    if (__builtin_cpu_supports("avx")) found.emplace_back("avx");
    if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
    if (__builtin_cpu_supports("bmi2")) found.emplace_back("bmi2");
    if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
    if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512");
    if (__builtin_cpu_supports("avx512vbmi")) found.emplace_back("avx512_vbmi");
    if (__builtin_cpu_supports("avx512vnni")) found.emplace_back("avx512_vnni");
    if (__builtin_cpu_supports("avx512bf16")) found.emplace_back("avx512_bf16");
#endif
    return found;
}

}  // namespace ltm
