#include "memory/kernels.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
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
#include <immintrin.h>
#define LTM_AVX2 __attribute__((target("avx2,fma")))
#define LTM_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")))
#endif

namespace ltm::memory {
namespace {

#if defined(__GNUC__) || defined(__clang__)
// Eight floats at any address; wider or narrower registers are the compiler's business.
using Lanes = float __attribute__((vector_size(32), aligned(4), may_alias));
constexpr std::size_t kLanes = 8;

LTM_INLINE const Lanes& lanes(const float* p) { return *reinterpret_cast<const Lanes*>(p); }

LTM_INLINE float sum(const Lanes& v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

// Of each lane the larger: what it has, or the size of what comes.
LTM_INLINE void grow(Lanes& most, const Lanes& v) {
    const Lanes size = v < 0.0F ? -v : v;
    most = most < size ? size : most;
}

LTM_INLINE float largest_of(const Lanes& v) { return std::max({v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]}); }
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

LTM_INLINE void grow(Lanes& most, const Lanes& v) {
    for (std::size_t i = 0; i < 8; ++i) most.of[i] = std::max(most.of[i], std::fabs(v.of[i]));
}

LTM_INLINE float largest_of(const Lanes& v) { return *std::max_element(v.of.begin(), v.of.end()); }
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

// Sums of products of codes. The compilers' own versions widen twice; what these do by hand is one multiply-and-add of
// sixteen bits.
template <typename T>
LTM_INLINE std::int32_t sum_products_baseline(const T* a, const std::int8_t* b, std::size_t n) {
    std::int32_t total = 0;
    for (std::size_t i = 0; i < n; ++i) {
        total += static_cast<std::int32_t>(static_cast<std::int16_t>(a[i])) * static_cast<std::int16_t>(b[i]);
    }
    return total;
}

#ifdef LTM_X86_VERSIONS
LTM_AVX2 LTM_INLINE __m256i widen_avx2(const std::int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
LTM_AVX2 LTM_INLINE __m256i widen_avx2(const std::int16_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

LTM_AVX2 LTM_INLINE std::int32_t sum_avx2(__m256i s) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
    return _mm_cvtsi128_si32(half);
}

template <typename T>
LTM_AVX2 LTM_INLINE std::int32_t sum_products_avx2(const T* a, const std::int8_t* b, std::size_t n) {
    __m256i s0 = _mm256_setzero_si256();
    __m256i s1 = _mm256_setzero_si256();
    std::size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s0 = _mm256_add_epi32(s0, _mm256_madd_epi16(widen_avx2(a + i), widen_avx2(b + i)));
        s1 = _mm256_add_epi32(s1, _mm256_madd_epi16(widen_avx2(a + i + 16), widen_avx2(b + i + 16)));
    }
    return sum_avx2(_mm256_add_epi32(s0, s1)) + sum_products_baseline(a + i, b + i, n - i);
}

LTM_AVX512 LTM_INLINE __m512i widen_avx512(const std::int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
LTM_AVX512 LTM_INLINE __m512i widen_avx512(const std::int16_t* p) { return _mm512_loadu_si512(p); }

template <typename T>
LTM_AVX512 LTM_INLINE std::int32_t sum_products_avx512(const T* a, const std::int8_t* b, std::size_t n) {
    __m512i s0 = _mm512_setzero_si512();
    __m512i s1 = _mm512_setzero_si512();
    std::size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        s0 = _mm512_add_epi32(s0, _mm512_madd_epi16(widen_avx512(a + i), widen_avx512(b + i)));
        s1 = _mm512_add_epi32(s1, _mm512_madd_epi16(widen_avx512(a + i + 32), widen_avx512(b + i + 32)));
    }
    // By way of memory: GCC 12 warns about its own header for every other way to halve a register of 512 bits.
    alignas(64) std::array<std::int32_t, 16> s;
    _mm512_store_si512(s.data(), _mm512_add_epi32(s0, s1));
    const auto* const halves = reinterpret_cast<const __m256i*>(s.data());
    return sum_avx2(_mm256_add_epi32(_mm256_load_si256(halves), _mm256_load_si256(halves + 1))) +
           sum_products_baseline(a + i, b + i, n - i);
}
#endif

LTM_INLINE Encoding encode_body(const float* v, std::size_t n, std::int8_t* code) {
    Lanes most{};
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) grow(most, lanes(v + i));
    float largest = largest_of(most);
    for (; i < n; ++i) largest = std::max(largest, std::fabs(v[i]));
    const float scale = largest / 127.0F;
    const float factor = largest > 0.0F ? 127.0F / largest : 0.0F;
    constexpr float kShift = 12582912.0F;  // 1.5 * 2**23: adding it leaves no room for a fraction, which rounds
    constexpr std::size_t kPiece = 256;
    std::array<float, kPiece> rest;
    float lost = 0.0F;
    for (std::size_t begin = 0; begin < n; begin += kPiece) {
        const std::size_t size = std::min(kPiece, n - begin);
        for (std::size_t j = 0; j < size; ++j) {
            const float shifted = v[begin + j] * factor + kShift;
            const float rounded = shifted - kShift;
            code[begin + j] = static_cast<std::int8_t>(static_cast<std::int32_t>(rounded));
            rest[j] = v[begin + j] - scale * rounded;
        }
        lost += dot_body(rest.data(), rest.data(), size);
    }
    // A sum of 65536 squares is off by a two-thousandth at most.
    return {scale, std::sqrt(lost) * 1.001F + 1e-7F, dot_body(v, v, n)};
}

// A scale with codes behind.
LTM_INLINE float scale_of(const void* item) {
    float scale = 0.0F;
    std::memcpy(&scale, item, sizeof scale);
    return scale;
}

LTM_INLINE const std::int8_t* codes_of(const void* item) {
    return static_cast<const std::int8_t*>(item) + sizeof(float);
}

#define LTM_VERSION(suffix, attribute)                                                                                 \
    attribute float dot_##suffix(const float* a, const float* b, std::size_t n) noexcept { return dot_body(a, b, n); } \
    attribute DotAndSquare dot_and_square_##suffix(const float* a, const float* b, std::size_t n) noexcept {           \
        return dot_and_square_body(a, b, n);                                                                           \
    }                                                                                                                  \
    attribute void scan_codes_##suffix(const std::int16_t* query, const std::int8_t* codes, std::size_t rows,          \
                                       std::size_t n, std::int32_t* products) noexcept {                               \
        for (std::size_t row = 0; row < rows; ++row) {                                                                 \
            products[row] = sum_products_##suffix(query, codes + row * n, n);                                          \
        }                                                                                                              \
    }                                                                                                                  \
    attribute Encoding encode_##suffix(const float* v, std::size_t n, std::int8_t* code) noexcept {                    \
        return encode_body(v, n, code);                                                                                \
    }                                                                                                                  \
    attribute float minus_dot_of_codes_##suffix(const void* a, const void* b, const void* dim) noexcept {              \
        const std::size_t n = *static_cast<const std::size_t*>(dim);                                                   \
        const std::int32_t sum_of_codes = sum_products_##suffix(codes_of(a), codes_of(b), n);                          \
        return -(scale_of(a) * scale_of(b)) * static_cast<float>(sum_of_codes);                                        \
    }                                                                                                                  \
    constexpr Kernels k_##suffix = {#suffix,                                                                           \
                                    dot_##suffix,                                                                      \
                                    dot_and_square_##suffix,                                                           \
                                    scan_codes_##suffix,                                                               \
                                    encode_##suffix,                                                                   \
                                    minus_dot_of_codes_##suffix};

LTM_VERSION(baseline, )
#ifdef LTM_X86_VERSIONS
LTM_VERSION(avx2, LTM_AVX2)
LTM_VERSION(avx512, LTM_AVX512)
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

Encoding encode(const float* v, std::size_t n, std::int8_t* code) noexcept { return kBest.encode(v, n, code); }

float minus_dot_of_codes(const void* a, const void* b, const void* dim) noexcept {
    return kBest.minus_dot_of_codes(a, b, dim);
}

Distance code_distance_kernel() noexcept { return kBest.minus_dot_of_codes; }

const char* kernel_name() noexcept { return kBest.name; }

std::span<const Kernels> supported_kernels() noexcept { return supported(); }

}  // namespace ltm::memory
