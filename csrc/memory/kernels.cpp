#include "memory/kernels.h"

#include <array>
#include <vector>

// One body for all instruction sets: the compiler vectorises it anew in each function that it is inlined into. NEON and
// SSE2 are the baseline of their platforms; newer x86 sets are asked for at load time.
#if defined(__GNUC__) || defined(__clang__)
#define LTM_INLINE inline __attribute__((always_inline))
#else
#define LTM_INLINE inline
#endif

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define LTM_X86_VERSIONS 1
#endif

namespace ltm::memory {
namespace {

#if defined(__GNUC__) || defined(__clang__)
// Eight floats at any address; wider or narrower registers are the compiler's business.
using Lanes = float __attribute__((vector_size(32), aligned(4), may_alias));
constexpr std::size_t kLanes = 8;

LTM_INLINE const Lanes& lanes(const float* p) { return *reinterpret_cast<const Lanes*>(p); }

LTM_INLINE float sum(const Lanes& v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }
#else
struct Lanes {
    std::array<float, 8> of{};
    Lanes& operator+=(const Lanes& other) {
        for (std::size_t i = 0; i < 8; ++i) of[i] += other.of[i];
        return *this;
    }
    friend Lanes operator*(const Lanes& a, const Lanes& b) {
        Lanes product;
        for (std::size_t i = 0; i < 8; ++i) product.of[i] = a.of[i] * b.of[i];
        return product;
    }
    friend Lanes operator+(Lanes a, const Lanes& b) { return a += b; }
};
constexpr std::size_t kLanes = 8;

LTM_INLINE Lanes lanes(const float* p) { return {{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}}; }

LTM_INLINE float sum(const Lanes& v) {
    return ((v.of[0] + v.of[4]) + (v.of[1] + v.of[5])) + ((v.of[2] + v.of[6]) + (v.of[3] + v.of[7]));
}
#endif

LTM_INLINE float dot_body(const float* a, const float* b, std::size_t n) {
    Lanes s0{}, s1{}, s2{}, s3{};
    std::size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
        s0 += lanes(a + i) * lanes(b + i);
        s1 += lanes(a + i + kLanes) * lanes(b + i + kLanes);
        s2 += lanes(a + i + 2 * kLanes) * lanes(b + i + 2 * kLanes);
        s3 += lanes(a + i + 3 * kLanes) * lanes(b + i + 3 * kLanes);
    }
    for (; i + kLanes <= n; i += kLanes) s0 += lanes(a + i) * lanes(b + i);
    const Lanes s = (s0 + s1) + (s2 + s3);
    float total = sum(s);
    for (; i < n; ++i) total += a[i] * b[i];
    return total;
}

LTM_INLINE DotAndSquare dot_and_square_body(const float* a, const float* b, std::size_t n) {
    Lanes p0{}, p1{}, q0{}, q1{};
    std::size_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
        p0 += lanes(a + i) * lanes(b + i);
        q0 += lanes(b + i) * lanes(b + i);
        p1 += lanes(a + i + kLanes) * lanes(b + i + kLanes);
        q1 += lanes(b + i + kLanes) * lanes(b + i + kLanes);
    }
    const Lanes p = p0 + p1;
    const Lanes q = q0 + q1;
    DotAndSquare total{sum(p), sum(q)};
    for (; i < n; ++i) {
        total.product += a[i] * b[i];
        total.square += b[i] * b[i];
    }
    return total;
}

LTM_INLINE void scan_codes_body(const std::int16_t* query, const std::int8_t* codes, std::size_t rows, std::size_t n,
                                std::int32_t* products) {
    for (std::size_t row = 0; row < rows; ++row) {
        const std::int8_t* const code = codes + row * n;
        std::int32_t total = 0;
        for (std::size_t i = 0; i < n; ++i) {
            total += static_cast<std::int32_t>(query[i]) * static_cast<std::int16_t>(code[i]);
        }
        products[row] = total;
    }
}

LTM_INLINE float minus_dot_body(const void* a, const void* b, const void* dim) {
    return -dot_body(static_cast<const float*>(a), static_cast<const float*>(b), *static_cast<const std::size_t*>(dim));
}

#define LTM_VERSION(suffix, attribute)                                                                                 \
    attribute float dot_##suffix(const float* a, const float* b, std::size_t n) noexcept { return dot_body(a, b, n); } \
    attribute DotAndSquare dot_and_square_##suffix(const float* a, const float* b, std::size_t n) noexcept {           \
        return dot_and_square_body(a, b, n);                                                                           \
    }                                                                                                                  \
    attribute void scan_codes_##suffix(const std::int16_t* query, const std::int8_t* codes, std::size_t rows,          \
                                       std::size_t n, std::int32_t* products) noexcept {                               \
        scan_codes_body(query, codes, rows, n, products);                                                              \
    }                                                                                                                  \
    attribute float minus_dot_##suffix(const void* a, const void* b, const void* dim) noexcept {                       \
        return minus_dot_body(a, b, dim);                                                                              \
    }                                                                                                                  \
    constexpr Kernels k_##suffix = {#suffix, dot_##suffix, dot_and_square_##suffix, scan_codes_##suffix,               \
                                    minus_dot_##suffix};

LTM_VERSION(baseline, )
#ifdef LTM_X86_VERSIONS
LTM_VERSION(avx2, __attribute__((target("avx2,fma"))))
LTM_VERSION(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq"))))
#endif
#undef LTM_VERSION

const std::vector<Kernels>& supported() {
    static const std::vector<Kernels> all = [] {
        std::vector<Kernels> found{k_baseline};
#ifdef LTM_X86_VERSIONS
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            found.push_back(k_avx2);
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
                found.push_back(k_avx512);
            }
        }
#endif
        return found;
    }();
    return all;
}

const Kernels kBest = supported().back();

}  // namespace

float dot(const float* a, const float* b, std::size_t n) noexcept { return kBest.dot(a, b, n); }

DotAndSquare dot_and_square(const float* a, const float* b, std::size_t n) noexcept {
    return kBest.dot_and_square(a, b, n);
}

void scan_codes(const std::int16_t* query, const std::int8_t* codes, std::size_t rows, std::size_t n,
                std::int32_t* products) noexcept {
    kBest.scan_codes(query, codes, rows, n, products);
}

float minus_dot(const void* a, const void* b, const void* dim) noexcept { return kBest.minus_dot(a, b, dim); }

Distance distance_kernel() noexcept { return kBest.minus_dot; }

const char* kernel_name() noexcept { return kBest.name; }

std::span<const Kernels> supported_kernels() noexcept { return supported(); }

}  // namespace ltm::memory
