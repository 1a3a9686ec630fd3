// Links between near vectors, along which a search finds its way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace ltm::memory {

// A hierarchical navigable small world graph (Malkov and Yashunin 2018) over vectors in eight bits, by hnswlib. It
// knows numbered nodes only, and none of them dies before `keep`; ids and deletion are the caller's business. What it
// finds is near by the eight bits, and wants to be ordered by the true vectors.
class Graph {
  public:
    using Node = std::uint32_t;
    static constexpr Node kNone = 0xFFFFFFFFU;
    static constexpr std::size_t kLinks = 16;              // of a node on upper levels
    static constexpr std::size_t kBaseLinks = 2 * kLinks;  // and on the lowest
    static constexpr std::size_t kMaxNodes = 0x7FFFFFF0U;  // hnswlib counts them in int

    // All links, as they stand in a file.
    struct Links {
        Node entry = kNone;
        std::vector<std::uint8_t> levels;  // [nodes]: the highest level of each
        std::vector<Node> base;            // [nodes, 1 + kBaseLinks]: how many, then whereto
        std::vector<Node> upper;           // [sum of levels, 1 + kLinks]: the same, by node and level from 1
    };

    explicit Graph(std::size_t dim);
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] std::size_t bytes() const noexcept;

    // Room for so many nodes in all. Before `insert`.
    void reserve(std::size_t nodes);
    // Adds a vector in eight bits and returns its node; several threads may do so at once. If it throws, the graph is
    // of no use any more.
    Node insert(float scale, const std::int8_t* code);
    // To call after the last of a run of inserts: frees what only they need.
    void settle();

    // Nodes near a query, `effort` of them or a few less, in no order. `allowed` decides what may be found; an empty
    // function allows everything. Several threads may search at once.
    void search(float scale, const std::int8_t* code, std::size_t effort, const std::function<bool(Node)>& allowed,
                std::vector<Node>& found) const;

    // Keeps the nodes for which `alive` holds and numbers them anew in their old order. Whatever was linked to one that
    // goes is linked to what that one led to (the consolidation of FreshDiskANN, Singh et al. 2021).
    void keep(const std::vector<bool>& alive);

    [[nodiscard]] Links links() const;
    // Builds a graph from links of unknown origin; every one of them is checked. `copy(node, place)` writes the scale
    // and behind it the codes of a node.
    // Throws Error(index_stale): the links don't make a graph.
    [[nodiscard]] static std::unique_ptr<Graph> restore(std::size_t dim, const Links& links,
                                                        const std::function<void(Node, std::byte*)>& copy);

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace ltm::memory
