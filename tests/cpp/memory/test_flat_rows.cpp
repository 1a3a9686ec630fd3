// The scan that filters by eight-bit copies against plain products, and the kernels and checksum under it.
#include <cmath>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "check.h"
#include "memory/checksum.h"
#include "memory/flat_rows.h"
#include "memory/kernels.h"

using namespace ltm::memory;

namespace {

std::mt19937 randomness(7);

std::vector<float> unit(std::size_t dim, const std::vector<float>* near = nullptr, float spread = 1.0F) {
    std::normal_distribution<float> normal(0.0F, spread);
    std::vector<float> v(dim);
    double square = 0.0;
    for (std::size_t i = 0; i < dim; ++i) {
        v[i] = normal(randomness) + (near != nullptr ? (*near)[i] : 0.0F);
        square += static_cast<double>(v[i]) * v[i];
    }
    for (float& x : v) x = static_cast<float>(x / std::sqrt(square));
    return v;
}

void kernels_agree_with_plain_loops() {
    for (const std::size_t n : {1U, 7U, 8U, 31U, 32U, 33U, 384U, 1000U}) {
        const std::vector<float> a = unit(n);
        const std::vector<float> b = unit(n);
        std::vector<std::int16_t> query(n);
        std::vector<std::int8_t> codes(3 * n);
        for (auto& q : query) q = static_cast<std::int16_t>(static_cast<int>(randomness() % 4001) - 2000);
        for (auto& c : codes) c = static_cast<std::int8_t>(static_cast<int>(randomness() % 255) - 127);
        double product = 0.0;
        double square = 0.0;
        for (std::size_t i = 0; i < n; ++i) {
            product += static_cast<double>(a[i]) * b[i];
            square += static_cast<double>(b[i]) * b[i];
        }
        for (const Kernels& k : supported_kernels()) {
            CHECK(std::fabs(k.dot(a.data(), b.data(), n) - product) < 1e-5);
            CHECK_EQ(k.dot(a.data(), b.data(), n), k.dot(b.data(), a.data(), n));
            std::vector<std::int8_t> code(n);
            const Encoding made = k.encode(a.data(), n, code.data());
            double rest = 0.0;
            for (std::size_t i = 0; i < n; ++i) {
                rest += std::pow(a[i] - static_cast<double>(made.scale) * code[i], 2);
            }
            CHECK(std::sqrt(rest) <= made.loss && made.loss <= 1.01 * std::sqrt(rest) + 1e-6);
            CHECK(std::fabs(made.square - 1.0F) < 1e-5F);
            std::vector<std::byte> coded(sizeof(float) + n);
            std::memcpy(coded.data(), &made.scale, sizeof(float));
            std::memcpy(coded.data() + sizeof(float), code.data(), n);
            std::int64_t of_codes = 0;
            for (const std::int8_t c : code) of_codes += c * c;
            CHECK_EQ(k.minus_dot_of_codes(coded.data(), coded.data(), &n),
                     -(made.scale * made.scale) * static_cast<float>(of_codes));
            const DotAndSquare both = k.dot_and_square(a.data(), b.data(), n);
            CHECK(std::fabs(both.product - product) < 1e-5);
            CHECK(std::fabs(both.square - square) < 1e-5);
            std::vector<std::int32_t> found(3);
            k.scan_codes(query.data(), codes.data(), 3, n, found.data());
            for (std::size_t row = 0; row < 3; ++row) {
                std::int64_t expected = 0;
                for (std::size_t i = 0; i < n; ++i) expected += query[i] * codes[row * n + i];
                CHECK_EQ(static_cast<std::int64_t>(found[row]), expected);
            }
        }
    }
}

// Rows so close together that eight bits can't tell them apart, and rows far apart.
void filtering_misses_nothing(std::size_t dim, float spread) {
    FlatRows rows(dim);
    const std::vector<float> middle = unit(dim);
    for (std::int64_t id = 0; id < 1500; ++id) rows.set(id, unit(dim, &middle, spread).data());
    for (std::int64_t id = 0; id < 1500; id += 3) rows.erase(*rows.find(id));
    for (std::int64_t id = 1; id < 1500; id += 30) rows.set(id, unit(dim, &middle, spread).data());
    CHECK_EQ(rows.size(), 1000U);
    for (const std::size_t k : {0U, 1U, 10U, 999U, 1000U, 5000U}) {
        const std::vector<float> query = unit(dim, &middle, spread);
        TopK plain(k);
        for (std::size_t row = 0; row < rows.size(); ++row) {
            plain.push({dot(query.data(), rows.vector(row), dim), rows.id(row)});
        }
        TopK filtered(k);
        rows.search(query.data(), k, filtered);
        const std::vector<Hit> expected = plain.take();
        const std::vector<Hit> found = filtered.take();
        CHECK_EQ(found.size(), expected.size());
        for (std::size_t i = 0; i < found.size() && i < expected.size(); ++i) {
            CHECK_EQ(found[i].id, expected[i].id);
            CHECK_EQ(found[i].score, expected[i].score);
        }
    }
}

std::uint64_t checksum(std::string_view text) {
    Checksum sum;
    sum.update(text.data(), text.size());
    return sum.value();
}

void checksum_follows_its_specification() {
    CHECK_EQ(checksum(""), 0xEF46DB3751D8E999U);
    CHECK_EQ(checksum("abc"), 0x44BC2CF5AD770999U);
    const std::string text(1000, 'x');
    for (const std::size_t piece : {1U, 3U, 31U, 32U, 33U, 999U}) {
        Checksum sum;
        for (std::size_t at = 0; at < text.size(); at += piece) {
            sum.update(text.data() + at, std::min(piece, text.size() - at));
        }
        CHECK_EQ(sum.value(), checksum(text));
    }
}

}  // namespace

int main() {
    kernels_agree_with_plain_loops();
    for (const std::size_t dim : {1U, 5U, 384U}) {
        for (const float spread : {1e-4F, 0.05F, 10.0F}) filtering_misses_nothing(dim, spread);
    }
    checksum_follows_its_specification();
    return check_report();
}
