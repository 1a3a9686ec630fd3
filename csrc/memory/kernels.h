// Dot products: the inner loops of every search, compiled for several instruction sets and chosen at load time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ltm::memory {

// float32[n] by float32[n]. The same arguments in either order give the same bits, so that scores can be compared.
[[nodiscard]] float dot(const float* a, const float* b, std::size_t n) noexcept;

// dot(a, b) and dot(b, b) in one pass over b.
struct DotAndSquare {
    float product;
    float square;
};
[[nodiscard]] DotAndSquare dot_and_square(const float* a, const float* b, std::size_t n) noexcept;

// products[i] = sum of query[j] * codes[i * n + j]. The caller keeps |query| small enough for 32 bits.
void scan_codes(const std::int16_t* query, const std::int8_t* codes, std::size_t rows, std::size_t n,
                std::int32_t* products) noexcept;

// A vector in eight bits: v = scale * code, nearly.
struct Encoding {
    float scale;
    float loss;    // length of what that leaves out, rounded up
    float square;  // dot(v, v)
};
[[nodiscard]] Encoding encode(const float* v, std::size_t n, std::int8_t* code) noexcept;

// hnswlib's signature; `dim` points to a std::size_t. Minus the dot product of two vectors in eight bits, each a
// float32 scale with its codes behind.
[[nodiscard]] float minus_dot_of_codes(const void* a, const void* b, const void* dim) noexcept;

// Pointer to the chosen version of minus_dot_of_codes, to call without a detour.
using Distance = float (*)(const void*, const void*, const void*);
[[nodiscard]] Distance code_distance_kernel() noexcept;

// Which version runs here: "baseline", "avx2" or "avx512".
[[nodiscard]] const char* kernel_name() noexcept;

// Every version that this processor can run, for the tests.
struct Kernels {
    const char* name;
    float (*dot)(const float*, const float*, std::size_t) noexcept;
    DotAndSquare (*dot_and_square)(const float*, const float*, std::size_t) noexcept;
    void (*scan_codes)(const std::int16_t*, const std::int8_t*, std::size_t, std::size_t, std::int32_t*) noexcept;
    Encoding (*encode)(const float*, std::size_t, std::int8_t*) noexcept;
    float (*minus_dot_of_codes)(const void*, const void*, const void*) noexcept;
};
[[nodiscard]] std::span<const Kernels> supported_kernels() noexcept;

}  // namespace ltm::memory
