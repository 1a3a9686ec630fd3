#include "memory/resonance.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "memory/kernels.h"

namespace ltm::memory {
namespace {

enum Part : std::size_t { kMeaning, kWords, kTension, kCentre, kArchetype, kRecency, kStrength };

constexpr float kLeftOut = std::numeric_limits<float>::quiet_NaN();

// NaN counts as 0.
float within_one(float x) noexcept { return x > 0.0F ? std::min(x, 1.0F) : 0.0F; }

void cosines(const Pair& pair, const ResonanceInput& input, Part part, float* parts) {
    if (pair.query == nullptr || pair.rows == nullptr) return;
    const double square = dot(pair.query, pair.query, input.dim);
    for (std::size_t row = 0; row < input.n; ++row) {
        const DotAndSquare found = dot_and_square(pair.query, pair.rows + row * input.dim, input.dim);
        const double lengths = std::sqrt(square * found.square);
        parts[row * kParts + part] = lengths > 0.0 ? within_one(static_cast<float>(found.product / lengths)) : 0.0F;
    }
}

float overlap(const std::uint64_t* a, const std::uint64_t* b, std::size_t width) noexcept {
    int both = 0;
    int either = 0;
    for (std::size_t i = 0; i < width; ++i) {
        both += std::popcount(a[i] & b[i]);
        either += std::popcount(a[i] | b[i]);
    }
    return static_cast<float>(both) / static_cast<float>(std::max(1, either));
}

}  // namespace

void resonate(const ResonanceInput& input, float* scores, float* parts) {
    std::fill_n(parts, input.n * kParts, kLeftOut);
    cosines(input.meaning, input, kMeaning, parts);
    cosines(input.tension, input, kTension, parts);
    cosines(input.centre, input, kCentre, parts);
    for (std::size_t row = 0; row < input.n; ++row) {
        float* const of = parts + row * kParts;
        if (input.words != nullptr) of[kWords] = within_one(input.words[row]);
        if (input.archetypes != nullptr) {
            of[kArchetype] = overlap(input.archetypes + row * input.width, input.wanted, input.width);
        }
        of[kRecency] = static_cast<float>(std::exp2(-std::max(0.0, input.age[row]) / input.half_life));
        const float strength = input.strength[row];
        of[kStrength] = std::isinf(strength) ? 1.0F : within_one(strength / (1.0F + strength));
        double total = 0.0;
        double weight = 0.0;
        for (std::size_t part = 0; part < kParts; ++part) {
            if (std::isnan(of[part])) continue;
            total += input.weights[part] * of[part];
            weight += input.weights[part];
        }
        scores[row] = static_cast<float>(total / std::max(weight, 1e-12));
    }
}

std::vector<std::int64_t> diversify(const float* scores, const float* vectors, std::size_t n, std::size_t dim,
                                    std::size_t k, double lam) {
    std::vector<double> lengths(n);
    for (std::size_t row = 0; row < n; ++row) {
        const double square = dot(vectors + row * dim, vectors + row * dim, dim);
        lengths[row] = square > 0.0 && std::isfinite(square) ? std::sqrt(square) : 0.0;
    }
    std::vector<double> nearest(n, 0.0);
    std::vector<bool> taken(n);
    std::vector<std::int64_t> order;
    order.reserve(std::min(k, n));
    while (order.size() < std::min(k, n)) {
        std::size_t best = n;
        double most = 0.0;
        for (std::size_t row = 0; row < n; ++row) {
            if (taken[row]) continue;
            const double gain = lam * scores[row] - (1.0 - lam) * nearest[row];
            if (best == n || gain > most) {
                best = row;
                most = gain;
            }
        }
        taken[best] = true;
        order.push_back(static_cast<std::int64_t>(best));
        if (lengths[best] == 0.0 || lam == 1.0) continue;
        for (std::size_t row = 0; row < n; ++row) {
            if (taken[row] || lengths[row] == 0.0) continue;
            const double product = dot(vectors + best * dim, vectors + row * dim, dim);
            nearest[row] = std::max(nearest[row], product / (lengths[best] * lengths[row]));
        }
    }
    return order;
}

}  // namespace ltm::memory
