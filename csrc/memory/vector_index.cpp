#include "memory/vector_index.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#include "memory/index_file.h"
#include "memory/kernels.h"
#include "support/error.h"

namespace ltm::memory {
namespace {

constexpr Graph::Node kNone = Graph::kNone;

// So many unlinked rows are scanned beside the graph; with more of them the full scan takes over until they are linked.
constexpr std::size_t kScannedBeside = 2048;
// A batch of this size is linked as a whole; smaller ones link so many rows for each that they bring, so that no single
// addition waits for thousands of others.
constexpr std::size_t kBatch = 64;
constexpr std::size_t kCatchUp = 4;
// The graph sheds dead nodes when they are this part of it, and is built anew when most of it is dead.
constexpr std::size_t kDeadShare = 4;
constexpr std::size_t kFewDead = 256;
// A filter that leaves less than this part of the rows is answered by scanning them.
constexpr std::size_t kFewAllowed = 8;
// The same for the part of the rows that is asked for.
constexpr std::size_t kManyWanted = 16;

void normalise(const float* v, std::size_t dim, std::vector<float>& unit, const char* what, std::size_t number) {
    double square = 0.0;
    for (std::size_t i = 0; i < dim; ++i) square += static_cast<double>(v[i]) * v[i];
    const double length = std::sqrt(square);
    if (!std::isfinite(length) || length == 0.0) {
        throw Error(ErrorCode::invalid_argument, std::string("vector index: ") + what + " " + std::to_string(number) +
                                                     " is zero or not finite; embed the text again");
    }
    unit.resize(dim);
    for (std::size_t i = 0; i < dim; ++i) unit[i] = static_cast<float>(v[i] / length);
}

}  // namespace

VectorIndex::VectorIndex(std::size_t dim, std::size_t exact_below) : dim_(dim), exact_below_(exact_below), rows_(dim) {
    if (dim == 0 || dim > kMaxDim) {
        throw Error(ErrorCode::invalid_argument, "vector index: dimension must be 1 to " + std::to_string(kMaxDim) +
                                                     ", found " + std::to_string(dim));
    }
}

std::size_t VectorIndex::size() const {
    const std::shared_lock lock(mutex_);
    return rows_.size();
}

bool VectorIndex::contains(std::int64_t id) const {
    const std::shared_lock lock(mutex_);
    return rows_.find(id).has_value();
}

IndexStats VectorIndex::stats() const {
    const std::shared_lock lock(mutex_);
    IndexStats found{rows_.size(), dead_, rows_.bytes(), places_.size() - dead_};
    found.bytes += nodes_.capacity() * sizeof(Graph::Node) + places_.capacity() * sizeof(std::uint32_t) +
                   waiting_.capacity() * sizeof(std::int64_t);
    if (graph_) found.bytes += graph_->bytes();
    return found;
}

// Changes.

void VectorIndex::add(std::span<const std::int64_t> ids, const float* vectors, std::size_t threads) {
    std::vector<float> unit;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (ids[i] < 0) {
            throw Error(ErrorCode::invalid_argument,
                        "vector index: ids must not be negative, found " + std::to_string(ids[i]));
        }
        normalise(vectors + i * dim_, dim_, unit, "row", i);
    }
    const std::unique_lock lock(mutex_);
    // First all that can fail for want of memory.
    rows_.reserve(rows_.size() + ids.size());
    const auto room = [](auto& table, std::size_t more) {
        if (table.capacity() < table.size() + more) {
            table.reserve(std::max(table.size() + more, table.capacity() + table.capacity() / 2));
        }
    };
    room(nodes_, ids.size());
    if (graph_) room(waiting_, ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
        normalise(vectors + i * dim_, dim_, unit, "row", i);
        set(ids[i], unit.data());
    }
    link(ids.size() >= kBatch ? rows_.size() : kCatchUp * ids.size(), threads);
    sweep(threads);
}

void VectorIndex::set(std::int64_t id, const float* unit) {
    const std::optional<std::size_t> old = rows_.find(id);
    if (old) {
        if (std::equal(unit, unit + dim_, rows_.vector(*old))) return;
        if (nodes_[*old] != kNone) {
            bury(*old);
            waiting_.push_back(id);
        }
    } else {
        nodes_.push_back(kNone);
        if (graph_) waiting_.push_back(id);
    }
    rows_.set(id, unit);
}

void VectorIndex::bury(std::size_t row) {
    places_[nodes_[row]] = kNone;
    nodes_[row] = kNone;
    ++dead_;
}

void VectorIndex::erase(std::size_t row) {
    if (nodes_[row] != kNone) bury(row);
    const std::size_t last = rows_.size() - 1;
    if (row != last) {
        nodes_[row] = nodes_[last];
        if (nodes_[row] != kNone) places_[nodes_[row]] = static_cast<std::uint32_t>(row);
    }
    nodes_.pop_back();
    rows_.erase(row);
}

std::size_t VectorIndex::remove(std::span<const std::int64_t> ids) {
    const std::unique_lock lock(mutex_);
    std::size_t count = 0;
    bool waited = false;
    for (const std::int64_t id : ids) {
        const std::optional<std::size_t> row = rows_.find(id);
        if (!row) continue;
        waited = waited || nodes_[*row] == kNone;
        erase(*row);
        ++count;
    }
    if (graph_ && waited) std::erase_if(waiting_, [this](std::int64_t id) { return !rows_.find(id); });
    sweep(1);
    return count;
}

void VectorIndex::drop_graph() {
    graph_.reset();
    std::vector<std::uint32_t>().swap(places_);
    std::vector<std::int64_t>().swap(waiting_);
    std::fill(nodes_.begin(), nodes_.end(), kNone);
    dead_ = 0;
}

void VectorIndex::link(std::size_t most, std::size_t threads) {
    if (!graph_ && rows_.size() <= exact_below_) return;
    try {
        if (!graph_) {
            waiting_.assign(rows_.ids().begin(), rows_.ids().end());
            graph_ = std::make_unique<Graph>(dim_);
        }
        const std::size_t count = std::min(most, waiting_.size());
        if (count == 0) return;
        graph_->reserve(graph_->size() + count);
        places_.resize(graph_->size() + count, kNone);
        const std::span<const std::int64_t> todo(waiting_.data() + waiting_.size() - count, count);
        std::atomic<std::size_t> next{0};
        std::exception_ptr failure;
        std::mutex guard;
        const auto work = [&] {
            try {
                for (std::size_t i = next++; i < count; i = next++) {
                    const std::size_t row = *rows_.find(todo[i]);
                    const Graph::Node node = graph_->insert(rows_.scale(row), rows_.code(row));
                    nodes_[row] = node;
                    places_[node] = static_cast<std::uint32_t>(row);
                }
            } catch (...) {
                const std::lock_guard held(guard);
                failure = std::current_exception();
                next = count;
            }
        };
        std::vector<std::thread> others;
        others.reserve(threads);
        try {
            for (std::size_t i = 1; i < std::min(threads, count / kBatch); ++i) others.emplace_back(work);
        } catch (const std::system_error&) {
            // Then fewer work.
        }
        work();
        for (std::thread& other : others) other.join();
        if (failure) std::rethrow_exception(failure);
        graph_->settle();
        waiting_.resize(waiting_.size() - count);
    } catch (const std::exception&) {
        // The rows are all there and are scanned; the next addition tries again.
        drop_graph();
    }
}

void VectorIndex::sweep(std::size_t threads) {
    if (!graph_) return;
    if (rows_.size() <= exact_below_ / 2 || rows_.size() == 0) {
        drop_graph();
    } else if (dead_ > std::max(kFewDead, graph_->size() / kDeadShare)) {
        compact_graph(threads);
    }
}

void VectorIndex::compact_graph(std::size_t threads) {
    if (!graph_ || dead_ == 0) return;
    if (dead_ > graph_->size() / 2) {
        drop_graph();
        link(rows_.size(), threads);
        return;
    }
    std::vector<bool> alive(graph_->size());
    std::vector<std::uint32_t> places;
    places.reserve(graph_->size() - dead_);
    for (std::size_t node = 0; node < alive.size(); ++node) {
        if (places_[node] == kNone) continue;
        alive[node] = true;
        places.push_back(places_[node]);
    }
    try {
        graph_->keep(alive);
    } catch (const std::exception&) {
        drop_graph();
        return;
    }
    places_ = std::move(places);
    for (std::size_t node = 0; node < places_.size(); ++node) nodes_[places_[node]] = static_cast<Graph::Node>(node);
    dead_ = 0;
}

void VectorIndex::compact(std::size_t threads) {
    const std::unique_lock lock(mutex_);
    if (graph_ && rows_.size() <= exact_below_) drop_graph();
    compact_graph(threads);
    link(rows_.size(), threads);
    rows_.shrink();
    nodes_.shrink_to_fit();
    places_.shrink_to_fit();
    waiting_.shrink_to_fit();
}

// Search.

void VectorIndex::search(const float* queries, std::size_t n, const Search& how, std::int64_t* ids,
                         float* scores) const {
    std::vector<float> unit;
    const std::shared_lock lock(mutex_);
    std::vector<std::size_t> few;
    std::vector<bool> many;
    bool scan = how.exact || !graph_ || rows_.size() <= exact_below_ || waiting_.size() > kScannedBeside ||
                how.k > rows_.size() / kManyWanted;
    if (how.allowed) {
        few.reserve(how.allowed->size());
        for (const std::int64_t id : *how.allowed) {
            if (const std::optional<std::size_t> row = rows_.find(id)) few.push_back(*row);
        }
        std::sort(few.begin(), few.end());
        few.erase(std::unique(few.begin(), few.end()), few.end());
        scan = scan || few.size() < std::max(exact_below_, rows_.size() / kFewAllowed);
        if (!scan) {
            many.resize(rows_.size());
            for (const std::size_t row : few) many[row] = true;
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        normalise(queries + i * dim_, dim_, unit, "query", i);
        TopK best(std::min(how.k, rows_.size()));
        if (!scan) {
            find_in_graph(unit.data(), how, how.allowed ? &many : nullptr, best);
        } else if (how.allowed) {
            for (const std::size_t row : few) best.push({dot(unit.data(), rows_.vector(row), dim_), rows_.id(row)});
        } else {
            rows_.search(unit.data(), how.k, best);
        }
        const std::vector<Hit> hits = best.take();
        for (std::size_t j = 0; j < how.k; ++j) {
            ids[i * how.k + j] = j < hits.size() ? hits[j].id : -1;
            scores[i * how.k + j] = j < hits.size() ? hits[j].score : -std::numeric_limits<float>::infinity();
        }
    }
}

void VectorIndex::find_in_graph(const float* unit, const Search& how, const std::vector<bool>* rows, TopK& best) const {
    thread_local std::vector<std::int8_t> code;
    thread_local std::vector<Graph::Node> found;
    code.resize(dim_);
    const float scale = encode(unit, dim_, code.data()).scale;
    std::function<bool(Graph::Node)> allowed;
    if (dead_ != 0 || rows != nullptr) {
        allowed = [this, rows](Graph::Node node) {
            const std::uint32_t row = places_[node];
            return row != kNone && (rows == nullptr || (*rows)[row]);
        };
    }
    graph_->search(scale, code.data(), std::max(how.effort, how.k), allowed, found);
    for (const Graph::Node node : found) {
        const std::uint32_t row = places_[node];
        if (row != kNone) best.push({dot(unit, rows_.vector(row), dim_), rows_.id(row)});
    }
    for (const std::int64_t id : waiting_) {
        const std::size_t row = *rows_.find(id);
        if (rows == nullptr || (*rows)[row]) best.push({dot(unit, rows_.vector(row), dim_), id});
    }
}

// The file.

void VectorIndex::save(const std::filesystem::path& path, const IndexOrigin& origin) {
    if (origin.embedder.size() > kMaxEmbedder) {
        throw Error(ErrorCode::invalid_argument, "vector index: the embedder's name has " +
                                                     std::to_string(origin.embedder.size()) + " bytes, the limit is " +
                                                     std::to_string(kMaxEmbedder));
    }
    {
        const std::unique_lock lock(mutex_);
        compact_graph(1);
    }
    const std::shared_lock lock(mutex_);
    // If another thread has removed something meanwhile, the links stay out of the file.
    write_index_file(path, origin, {dim_, &rows_, dead_ == 0 ? graph_.get() : nullptr, &places_});
}

std::unique_ptr<VectorIndex> VectorIndex::load(const std::filesystem::path& path, std::size_t dim,
                                               const IndexOrigin& origin, std::size_t exact_below) {
    auto index = std::make_unique<VectorIndex>(dim, exact_below);
    index->graph_ = read_index_file(path, origin, dim, index->rows_, index->places_);
    index->nodes_.assign(index->rows_.size(), kNone);
    if (index->graph_) {
        for (std::size_t node = 0; node < index->places_.size(); ++node) {
            index->nodes_[index->places_[node]] = static_cast<Graph::Node>(node);
        }
        for (std::size_t row = 0; row < index->nodes_.size(); ++row) {
            if (index->nodes_[row] == kNone) index->waiting_.push_back(index->rows_.id(row));
        }
    }
    return index;
}

}  // namespace ltm::memory
