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

LTM_INLINE Encoding encode_body(const float* v, std::size_t n, std::int8_t* code) {
    std::array<float, kLanes> most{}, lost{}, whole{};
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) {
            const float size = std::fabs(v[i + j]);
            most[j] = most[j] < size ? size : most[j];
        }
    }
    for (; i < n; ++i) most[0] = std::max(most[0], std::fabs(v[i]));
    const float largest = *std::max_element(most.begin(), most.end());
    const float scale = largest / 127.0F;
    const float factor = largest > 0.0F ? 127.0F / largest : 0.0F;
    constexpr float kShift = 12582912.0F;  // 1.5 * 2**23: adding it leaves no room for a fraction, which rounds
    const auto one = [&](std::size_t at, std::size_t lane) {
        const float shifted = v[at] * factor + kShift;
        const float rounded = shifted - kShift;
        code[at] = static_cast<std::int8_t>(static_cast<std::int32_t>(rounded));
        const float rest = v[at] - scale * rounded;
        lost[lane] += rest * rest;
        whole[lane] += v[at] * v[at];
    };
    for (i = 0; i + kLanes <= n; i += kLanes) {
        for (std::size_t j = 0; j < kLanes; ++j) one(i + j, j);
    }
    for (; i < n; ++i) one(i, 0);
    float loss = 0.0F;
    float square = 0.0F;
    for (std::size_t j = 0; j < kLanes; ++j) {
        loss += lost[j];
        square += whole[j];
    }
    // A sum of 65536 squares in eight lanes is off by a two-thousandth at most.
    return {scale, std::sqrt(loss) * 1.001F + 1e-7F, square};
}

LTM_INLINE float minus_dot_of_codes_body(const void* a, const void* b, const void* dim) {
    const std::size_t n = *static_cast<const std::size_t*>(dim);
    float scale_a = 0.0F;
    float scale_b = 0.0F;
    std::memcpy(&scale_a, a, sizeof scale_a);
    std::memcpy(&scale_b, b, sizeof scale_b);
    const auto* const codes_a = static_cast<const std::int8_t*>(a) + sizeof scale_a;
    const auto* const codes_b = static_cast<const std::int8_t*>(b) + sizeof scale_b;
    std::int32_t total = 0;
    for (std::size_t i = 0; i < n; ++i) {
        total += static_cast<std::int16_t>(codes_a[i]) * static_cast<std::int16_t>(codes_b[i]);
    }
    return -(scale_a * scale_b) * static_cast<float>(total);
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
    attribute Encoding encode_##suffix(const float* v, std::size_t n, std::int8_t* code) noexcept {                    \
        return encode_body(v, n, code);                                                                                \
    }                                                                                                                  \
    attribute float minus_dot_of_codes_##suffix(const void* a, const void* b, const void* dim) noexcept {              \
        return minus_dot_of_codes_body(a, b, dim);                                                                     \
    }                                                                                                                  \
    constexpr Kernels k_##suffix = {#suffix,                                                                           \
                                    dot_##suffix,                                                                      \
                                    dot_and_square_##suffix,                                                           \
                                    scan_codes_##suffix,                                                               \
                                    encode_##suffix,                                                                   \
                                    minus_dot_of_codes_##suffix};

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

Encoding encode(const float* v, std::size_t n, std::int8_t* code) noexcept { return kBest.encode(v, n, code); }

float minus_dot_of_codes(const void* a, const void* b, const void* dim) noexcept {
    return kBest.minus_dot_of_codes(a, b, dim);
}

Distance code_distance_kernel() noexcept { return kBest.minus_dot_of_codes; }

const char* kernel_name() noexcept { return kBest.name; }

std::span<const Kernels> supported_kernels() noexcept { return supported(); }

}  // namespace ltm::memory
