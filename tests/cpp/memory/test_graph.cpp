// The graph and the index over it: recall against a scan, consolidation, links of unknown origin.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "check.h"
#include "memory/graph.h"
#include "memory/kernels.h"
#include "memory/vector_index.h"
#include "support/error.h"

using namespace ltm::memory;

namespace {

constexpr std::size_t kDim = 24;
std::mt19937 randomness(7);

struct Points {
    explicit Points(std::size_t count) : vectors(count * kDim), codes(count * kDim), scales(count) {
        std::normal_distribution<float> normal;
        for (float& x : vectors) x = normal(randomness);
        for (std::size_t i = 0; i < count; ++i) {
            float* const v = vectors.data() + i * kDim;
            const float length = std::sqrt(dot(v, v, kDim));
            for (std::size_t j = 0; j < kDim; ++j) v[j] /= length;
            scales[i] = encode(v, kDim, codes.data() + i * kDim).scale;
        }
    }
    [[nodiscard]] std::size_t size() const { return scales.size(); }
    [[nodiscard]] const float* vector(std::size_t i) const { return vectors.data() + i * kDim; }
    [[nodiscard]] const std::int8_t* code(std::size_t i) const { return codes.data() + i * kDim; }

    std::vector<float> vectors;
    std::vector<std::int8_t> codes;
    std::vector<float> scales;
};

std::unique_ptr<Graph> grown(const Points& points) {
    auto graph = std::make_unique<Graph>(kDim);
    graph->reserve(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) CHECK_EQ(graph->insert(points.scales[i], points.code(i)), i);
    graph->settle();
    return graph;
}

// Of the ten nearest that `numbers` (of the nodes) tell to be alive, the share that the graph finds.
double recall(const Graph& graph, const Points& points, const std::vector<std::size_t>& numbers) {
    const Points queries(50);
    std::size_t hits = 0;
    for (std::size_t q = 0; q < queries.size(); ++q) {
        TopK plain(10);
        for (const std::size_t i : numbers) {
            plain.push({dot(queries.vector(q), points.vector(i), kDim), static_cast<std::int64_t>(i)});
        }
        std::set<std::int64_t> expected;
        for (const Hit& hit : plain.take()) expected.insert(hit.id);
        std::vector<Graph::Node> found;
        graph.search(queries.scales[q], queries.code(q), 64, {}, found);
        CHECK_EQ(std::set<Graph::Node>(found.begin(), found.end()).size(), found.size());
        for (const Graph::Node node : found) hits += expected.count(static_cast<std::int64_t>(numbers[node]));
    }
    return static_cast<double>(hits) / (10.0 * static_cast<double>(queries.size()));
}

void consolidation_keeps_what_is_left_findable() {
    const Points points(2000);
    const auto made = grown(points);
    Graph& graph = *made;
    std::vector<std::size_t> numbers(points.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
    CHECK(recall(graph, points, numbers) > 0.95);
    while (numbers.size() > 200) {
        std::vector<bool> alive(numbers.size());
        std::vector<std::size_t> left;
        for (std::size_t node = 0; node < numbers.size(); ++node) {
            alive[node] = randomness() % 4 != 0;
            if (alive[node]) left.push_back(numbers[node]);
        }
        graph.keep(alive);
        numbers = left;
        CHECK_EQ(graph.size(), numbers.size());
        CHECK(recall(graph, points, numbers) > 0.95);
    }
    graph.keep(std::vector<bool>(graph.size()));
    CHECK_EQ(graph.size(), 0U);
    std::vector<Graph::Node> found{1};
    graph.search(points.scales[0], points.code(0), 10, {}, found);
    CHECK(found.empty());
    graph.reserve(1);
    CHECK_EQ(graph.insert(points.scales[0], points.code(0)), 0U);
}

void a_filter_is_kept_to() {
    const Points points(1000);
    const auto made = grown(points);
    const Graph& graph = *made;
    std::vector<Graph::Node> found;
    graph.search(points.scales[5], points.code(5), 20, [](Graph::Node node) { return node % 3 == 0; }, found);
    CHECK_EQ(found.size(), 20U);
    CHECK(std::all_of(found.begin(), found.end(), [](Graph::Node node) { return node % 3 == 0; }));
}

void links_are_checked() {
    const Points points(500);
    const auto made = grown(points);
    const Graph& graph = *made;
    const Graph::Links whole = graph.links();
    const auto copy = [&](Graph::Node node, std::byte* place) {
        std::memcpy(place, &points.scales[node], sizeof(float));
        std::memcpy(place + sizeof(float), points.code(node), kDim);
    };
    const auto again = Graph::restore(kDim, whole, copy);
    CHECK(again->links().base == whole.base && again->links().upper == whole.upper);
    CHECK_EQ(again->links().entry, whole.entry);
    std::vector<Graph::Node> one;
    std::vector<Graph::Node> other;
    graph.search(points.scales[9], points.code(9), 30, {}, one);
    again->search(points.scales[9], points.code(9), 30, {}, other);
    CHECK(one == other);

    const auto refused = [&](auto change) {
        Graph::Links links = whole;
        change(links);
        CHECK_THROWS(Graph::restore(kDim, links, copy), ltm::Error);
    };
    refused([](Graph::Links& l) { l.entry = 500; });
    refused([](Graph::Links& l) {
        l.entry =
            static_cast<Graph::Node>(std::distance(l.levels.begin(), std::find(l.levels.begin(), l.levels.end(), 0)));
    });
    refused([](Graph::Links& l) { l.levels[3] = 41; });
    refused([](Graph::Links& l) { ++l.levels[3]; });
    refused([](Graph::Links& l) { l.levels.pop_back(); });
    refused([](Graph::Links& l) { l.base.pop_back(); });
    refused([](Graph::Links& l) { l.base[0] = Graph::kBaseLinks + 1; });
    refused([](Graph::Links& l) { l.base[1] = 0; });
    refused([](Graph::Links& l) { l.base[1] = 500; });
    refused([](Graph::Links& l) { l.base[1] = Graph::kNone; });
    refused([](Graph::Links& l) { l.upper.pop_back(); });
    refused([](Graph::Links& l) { l.upper.resize(l.upper.size() + 1 + Graph::kLinks); });
    refused([](Graph::Links& l) { l.upper[0] = Graph::kLinks + 1; });
    refused([](Graph::Links& l) {  // a link above to a node that doesn't reach so high
        l.upper[0] = 1;
        l.upper[1] =
            static_cast<Graph::Node>(std::distance(l.levels.begin(), std::find(l.levels.begin(), l.levels.end(), 0)));
    });
}

// Everything at once, with threads that link, filters, replacements, and a file now and then.
void an_index_finds_what_a_scan_finds() {
    const Points points(3000);
    auto index = std::make_unique<VectorIndex>(kDim, 200);
    std::vector<std::int64_t> ids(points.size());
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i);
    index->add(ids, points.vectors.data(), 3);
    CHECK_EQ(index->stats().linked, 3000U);
    const auto path = std::filesystem::temp_directory_path() / "ltm_test_graph.index";
    const auto compare = [&] {
        const Points queries(30);
        std::vector<std::int64_t> found(300), exact(300);
        std::vector<float> scores(300);
        index->search(queries.vectors.data(), 30, {10, 64, false, std::nullopt}, found.data(), scores.data());
        index->search(queries.vectors.data(), 30, {10, 1, true, std::nullopt}, exact.data(), scores.data());
        std::size_t hits = 0;
        for (std::size_t i = 0; i < 300; ++i) {
            const auto begin = exact.begin() + static_cast<std::ptrdiff_t>(i / 10 * 10);
            hits += static_cast<std::size_t>(std::count(begin, begin + 10, found[i]));
        }
        CHECK(hits > 285);
    };
    for (std::int64_t step = 0; step < 6; ++step) {
        std::vector<std::int64_t> some;
        for (std::int64_t id = step; id < 3000; id += 7) some.push_back(id);
        if (step % 2 == 0) {
            CHECK_EQ(index->remove(some), some.size());
        } else {
            const Points others(some.size());
            index->add(some, others.vectors.data(), 2);
        }
        compare();
        index->save(path, {7, "embedder"});
        CHECK_EQ(index->stats().deleted, 0U);
        index = VectorIndex::load(path, kDim, {7, "embedder"}, 200);
        compare();
    }
    CHECK_THROWS(VectorIndex::load(path, kDim, {8, "embedder"}, 200), ltm::Error);
    CHECK_THROWS(VectorIndex::load(path, kDim, {7, "other"}, 200), ltm::Error);
    CHECK_THROWS(VectorIndex::load(path, kDim + 1, {7, "embedder"}, 200), ltm::Error);
    std::filesystem::remove(path);
    CHECK_THROWS(VectorIndex::load(path, kDim, {7, "embedder"}, 200), ltm::Error);
}

}  // namespace

int main() {
    consolidation_keeps_what_is_left_findable();
    a_filter_is_kept_to();
    links_are_checked();
    an_index_finds_what_a_scan_finds();
    return check_report();
}
