// The score by which memory ranks scenes, and the choice of hits that differ.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ltm::memory {

inline constexpr std::size_t kParts = 7;  // meaning, words, tension, centre, archetype, recency, strength

// A vector of the query and the same of each candidate; null: the part is left out.
struct Pair {
    const float* query = nullptr;  // [dim]
    const float* rows = nullptr;   // [n, dim]
};

struct ResonanceInput {
    std::size_t n = 0;
    std::size_t dim = 0;
    Pair meaning;
    Pair tension;
    Pair centre;
    const float* words = nullptr;               // [n]
    const std::uint64_t* archetypes = nullptr;  // [n, width]
    const std::uint64_t* wanted = nullptr;      // [width]
    std::size_t width = 0;
    const double* age = nullptr;      // [n], seconds
    const float* strength = nullptr;  // [n]
    double half_life = 1.0;           // seconds
    std::array<double, kParts> weights{};
};

// Writes scores [n] and parts [n, kParts]; a part that was left out is NaN.
void resonate(const ResonanceInput& input, float* scores, float* parts);

// Maximal marginal relevance (Carbonell and Goldstein 1998): rows in the order taken, at most k. vectors: [n, dim].
[[nodiscard]] std::vector<std::int64_t> diversify(const float* scores, const float* vectors, std::size_t n,
                                                  std::size_t dim, std::size_t k, double lam);

}  // namespace ltm::memory
