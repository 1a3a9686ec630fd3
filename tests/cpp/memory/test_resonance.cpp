// The parts of resonance by their formulas, what is left out, and the choice of hits that differ.
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "memory/resonance.h"

using namespace ltm::memory;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

bool near(float a, double b) { return std::fabs(a - b) < 1e-6; }

struct Case {
    std::vector<float> query{1, 0, 0};
    std::vector<float> rows{2, 0, 0, -1, 0, 0, kNan, kNan, kNan, 3, 4, 0};
    std::vector<float> words{0.5F, 7.0F, kNan, -1.0F};
    std::vector<std::uint64_t> archetypes{6, 2, 8, 0};
    std::vector<std::uint64_t> wanted{6};
    std::vector<double> age{0, 10, -5, 1e300};
    std::vector<float> strength{0, 1, 3, std::numeric_limits<float>::infinity()};

    [[nodiscard]] ResonanceInput input() const {
        ResonanceInput in;
        in.n = 4;
        in.dim = 3;
        in.age = age.data();
        in.strength = strength.data();
        in.half_life = 10;
        in.weights = {1, 2, 3, 4, 5, 6, 7};
        return in;
    }
};

void every_part_follows_its_formula() {
    const Case c;
    ResonanceInput in = c.input();
    in.meaning = in.tension = in.centre = {c.query.data(), c.rows.data()};
    in.words = c.words.data();
    in.archetypes = c.archetypes.data();
    in.wanted = c.wanted.data();
    in.width = 1;
    std::vector<float> scores(4);
    std::vector<float> parts(4 * kParts);
    resonate(in, scores.data(), parts.data());
    const double expected[4][kParts] = {
        {1, 0.5, 1, 1, 1, 1, 0}, {0, 1, 0, 0, 0.5, 0.5, 0.5}, {0, 0, 0, 0, 0, 1, 0.75}, {0.6, 0, 0.6, 0.6, 0, 0, 1}};
    for (std::size_t row = 0; row < 4; ++row) {
        double total = 0.0;
        for (std::size_t part = 0; part < kParts; ++part) {
            CHECK(near(parts[row * kParts + part], expected[row][part]));
            total += in.weights[part] * expected[row][part];
        }
        CHECK(near(scores[row], total / 28));
    }
}

void what_is_left_out_has_no_weight() {
    const Case c;
    const ResonanceInput in = c.input();
    std::vector<float> scores(4);
    std::vector<float> parts(4 * kParts);
    resonate(in, scores.data(), parts.data());
    for (std::size_t row = 0; row < 4; ++row) {
        for (std::size_t part = 0; part < 5; ++part) CHECK(std::isnan(parts[row * kParts + part]));
    }
    CHECK(near(scores[1], (6 * 0.5 + 7 * 0.5) / 13));
    ResonanceInput none = in;
    none.n = 0;
    resonate(none, nullptr, nullptr);
}

void doubles_come_late() {
    const std::vector<float> vectors{1, 0, 1, 0, 0, 1, kNan, 0};
    const std::vector<float> scores{1.0F, 0.9F, 0.5F, 0.4F};
    const auto order = [&](std::size_t k, double lam) {
        return diversify(scores.data(), vectors.data(), 4, 2, k, lam);
    };
    CHECK((order(9, 0.5) == std::vector<std::int64_t>{0, 2, 3, 1}));
    CHECK((order(2, 1.0) == std::vector<std::int64_t>{0, 1}));
    CHECK(order(0, 0.5).empty());
    CHECK(diversify(nullptr, nullptr, 0, 2, 5, 0.5).empty());
}

}  // namespace

int main() {
    every_part_follows_its_formula();
    what_is_left_out_has_no_weight();
    doubles_come_late();
    return check_report();
}
