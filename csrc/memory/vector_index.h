// Nearest neighbours by cosine: a full scan or a graph behind one interface.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "memory/flat_rows.h"
#include "memory/graph.h"
#include "memory/top_k.h"

namespace ltm::memory {

struct IndexStats {
    std::size_t count;    // vectors that can be found
    std::size_t deleted;  // nodes of the graph whose vectors are gone
    std::size_t bytes;    // memory
    std::size_t linked;   // vectors in the graph
};

// What a file of vectors must agree with.
struct IndexOrigin {
    std::uint64_t generation;  // of the store
    std::string embedder;      // at most kMaxEmbedder bytes
};
inline constexpr std::size_t kMaxEmbedder = 256;

// Up to `exact_below` vectors every search scans. Beyond, a graph finds candidates, which the true vectors put in
// order; what isn't linked yet is scanned beside it, and so are the rows of a filter that leaves few.
//
// Searches may run together; changes exclude each other and searches.
class VectorIndex {
  public:
    static constexpr std::size_t kMaxDim = 65536;
    static constexpr std::size_t kEffort = 64;  // candidates that a search of the graph keeps

    VectorIndex(std::size_t dim, std::size_t exact_below);

    [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] bool contains(std::int64_t id) const;
    [[nodiscard]] IndexStats stats() const;

    // Adds or replaces; `vectors` is float32[ids.size(), dim] of any length but zero. All or nothing. `threads` link.
    void add(std::span<const std::int64_t> ids, const float* vectors, std::size_t threads);
    // Returns how many of these there were.
    std::size_t remove(std::span<const std::int64_t> ids);

    // The k best of each query, float32[n, dim], best first, into ids and scores [n, k]; -1 and -inf fill up.
    struct Search {
        std::size_t k;
        std::size_t effort = kEffort;
        bool exact = false;
        std::optional<std::span<const std::int64_t>> allowed;
    };
    void search(const float* queries, std::size_t n, const Search& how, std::int64_t* ids, float* scores) const;

    // Gives back the room of what was removed.
    void compact(std::size_t threads);

    // Writes the file, without temporary and rename, which are the caller's. Removed vectors aren't in it.
    void save(const std::filesystem::path& path, const IndexOrigin& origin);
    // Throws Error(index_stale) if the file isn't just this.
    [[nodiscard]] static std::unique_ptr<VectorIndex> load(const std::filesystem::path& path, std::size_t dim,
                                                           const IndexOrigin& origin, std::size_t exact_below);

  private:
    void set(std::int64_t id, const float* unit);
    void erase(std::size_t row);
    void bury(std::size_t row);
    void link(std::size_t most, std::size_t threads);
    void drop_graph();
    void sweep(std::size_t threads);
    void compact_graph(std::size_t threads);
    void find_in_graph(const float* unit, const Search& how, const std::vector<bool>* rows, TopK& best) const;

    std::size_t dim_;
    std::size_t exact_below_;
    mutable std::shared_mutex mutex_;
    FlatRows rows_;
    std::unique_ptr<Graph> graph_;
    std::vector<Graph::Node> nodes_;     // [rows]: of the graph, or kNone
    std::vector<std::uint32_t> places_;  // [nodes]: their rows, or kNone
    std::vector<std::int64_t> waiting_;  // ids of rows without a node, while there is a graph
    std::size_t dead_ = 0;               // nodes without a row
};

}  // namespace ltm::memory
