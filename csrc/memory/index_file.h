// The file of a vector index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "memory/flat_rows.h"
#include "memory/graph.h"
#include "memory/vector_index.h"

namespace ltm::memory {

// Little-endian:
//
//   magic "LTMVIDX1", version, dimension, counts, generation, embedder, XXH64 of all this
//   ids       int64[count]
//   vectors   float32[count, dim], of length 1
//   places    uint32[nodes]       row of each node of the graph
//   levels    uint8[nodes]
//   base      uint32[nodes, 1 + kBaseLinks]
//   upper     uint32[upper, 1 + kLinks]
//   XXH64 of everything after the header
//
// Rows without a node are those that were not linked when it was written. A reader trusts neither sizes nor links: a
// file with the right checksums may still have been made to harm.
struct IndexContent {
    std::size_t dim;
    const FlatRows* rows;
    const Graph* graph;                        // may be null
    const std::vector<std::uint32_t>* places;  // as long as the graph
};

// Throws Error(memory): the file can't be written.
void write_index_file(const std::filesystem::path& path, const IndexOrigin& origin, const IndexContent& content);

// Fills rows and places and returns the graph, or null if the file has none.
// Throws Error(index_stale): the file is missing, damaged, or not of this version, dimension and origin.
[[nodiscard]] std::unique_ptr<Graph> read_index_file(const std::filesystem::path& path, const IndexOrigin& origin,
                                                     std::size_t dim, FlatRows& rows,
                                                     std::vector<std::uint32_t>& places);

}  // namespace ltm::memory
