#include "memory/graph.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <new>
#include <string>
#include <utility>

// hnswlib reads a word behind its lists to prefetch what comes next; a sanitizer minds.
#if defined(__SANITIZE_ADDRESS__)
#define NO_MANUAL_VECTORIZATION
#endif
#include <hnswlib/hnswlib.h>

#include "memory/kernels.h"
#include "support/error.h"

namespace ltm::memory {
namespace {

using Engine = hnswlib::HierarchicalNSW<float>;
using Queue = std::priority_queue<std::pair<float, Graph::Node>, std::vector<std::pair<float, Graph::Node>>,
                                  Engine::CompareByFirst>;

constexpr std::size_t kBuildEffort = 200;
constexpr std::size_t kMaxLevel = 40;
constexpr std::size_t kLeast = 64;  // nodes that there is room for from the start
// Of the nodes behind those that go, how many are looked at as new neighbours.
constexpr std::size_t kHeirs = 256;
// So many items ahead a search asks the memory.
constexpr std::size_t kAhead = 6;

// hnswlib wants its links aligned, and they follow the vectors.
std::size_t item_bytes(std::size_t dim) { return (sizeof(float) + dim + 7) / 8 * 8; }

class CodeSpace : public hnswlib::SpaceInterface<float> {
  public:
    explicit CodeSpace(std::size_t dim) : dim_(dim) {}
    std::size_t get_data_size() override { return item_bytes(dim_); }
    hnswlib::DISTFUNC<float> get_dist_func() override { return code_distance_kernel(); }
    void* get_dist_func_param() override { return &dim_; }

  private:
    std::size_t dim_;
};

// A node with its distance from a query.
using Near = std::pair<float, Graph::Node>;

// Brings an item into the cache.
inline void fetch([[maybe_unused]] const char* item, [[maybe_unused]] std::size_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
    for (std::size_t at = 0; at < bytes; at += 64) __builtin_prefetch(item + at);
#endif
}

// hnswlib's marks of what a search has seen, given back when it ends.
class Visited {
  public:
    explicit Visited(const Engine& engine) : pool_(*engine.visited_list_pool_), list_(pool_.getFreeVisitedList()) {}
    ~Visited() { pool_.releaseVisitedList(list_); }
    Visited(const Visited&) = delete;
    Visited& operator=(const Visited&) = delete;

    // True the first time.
    bool visit(Graph::Node node) {
        const bool first = list_->mass[node] != list_->curV;
        list_->mass[node] = list_->curV;
        return first;
    }

  private:
    hnswlib::VisitedListPool& pool_;
    hnswlib::VisitedList* list_;
};

[[noreturn]] void damaged(const std::string& what) {
    throw Error(ErrorCode::index_stale, "vector index: damaged graph: " + what);
}

}  // namespace

struct Graph::Impl {
    explicit Impl(std::size_t dim_, std::size_t capacity)
        : dim(dim_), space(dim_), engine(&space, capacity, kLinks, kBuildEffort, 100 + capacity) {
        // Labels are ours alone: nothing locks by them.
        std::vector<std::mutex>().swap(engine.label_op_locks_);
        std::vector<std::mutex>().swap(engine.link_list_locks_);
    }

    [[nodiscard]] std::size_t size() const noexcept { return engine.cur_element_count; }

    void resize(std::size_t capacity) {
        engine.resizeIndex(capacity);
        std::vector<std::mutex>().swap(engine.link_list_locks_);
    }

    std::vector<std::byte>& coded(float scale, const std::int8_t* code) const {
        thread_local std::vector<std::byte> item;
        item.assign(item_bytes(dim), std::byte{0});
        std::memcpy(item.data(), &scale, sizeof scale);
        std::memcpy(item.data() + sizeof scale, code, dim);
        return item;
    }

    [[nodiscard]] std::span<Node> list(Node node, std::size_t level) const {
        auto* const head = engine.get_linklist_at_level(node, static_cast<int>(level));
        return {head + 1, engine.getListCount(head)};
    }

    void set_list(Node node, std::size_t level, const std::vector<Node>& nodes) {
        auto* const head = engine.get_linklist_at_level(node, static_cast<int>(level));
        std::memset(head, 0, sizeof(Node) * (1 + (level == 0 ? kBaseLinks : kLinks)));
        engine.setListCount(head, static_cast<unsigned short>(nodes.size()));
        std::copy(nodes.begin(), nodes.end(), head + 1);
    }

    [[nodiscard]] float distance(Node a, Node b) const {
        return engine.fstdistfunc_(engine.getDataByInternalId(a), engine.getDataByInternalId(b),
                                   engine.dist_func_param_);
    }

    // The search of the lowest level, hnswlib's but for fetching what comes next into the cache: most of its time a
    // search waits for memory.
    void search_base(const void* query, Near entry, std::size_t effort, const std::function<bool(Node)>& allowed,
                     std::vector<Node>& found) const;
    // Makes a node's links lead past nodes that go; false: it has none to such.
    bool bypass(Node node, std::size_t level, const std::vector<bool>& alive);
    // Links what a node leads to back to it, as adding it would.
    void link_back(Node node, std::size_t level);
    void choose(Node node, std::size_t level, const std::vector<Node>& among);
    void renumber(const std::vector<bool>& alive);

    std::size_t dim;
    CodeSpace space;
    Engine engine;
    std::atomic<hnswlib::labeltype> next_label{0};
};

Graph::Graph(std::size_t dim) : impl_(std::make_unique<Impl>(dim, kLeast)) {}
Graph::~Graph() = default;

std::size_t Graph::size() const noexcept { return impl_->size(); }

std::size_t Graph::bytes() const noexcept {
    const Engine& engine = impl_->engine;
    std::size_t total = engine.max_elements_ * (engine.size_data_per_element_ + sizeof(char*) + sizeof(int)) +
                        engine.link_list_locks_.size() * sizeof(std::mutex);
    for (std::size_t node = 0; node < size(); ++node) {
        total += static_cast<std::size_t>(engine.element_levels_[node]) * engine.size_links_per_element_;
    }
    return total;
}

void Graph::reserve(std::size_t nodes) {
    if (nodes > kMaxNodes) {
        throw Error(ErrorCode::memory, "vector index: " + std::to_string(nodes) + " vectors, the limit is " +
                                           std::to_string(kMaxNodes) + "; split the memory");
    }
    Engine& engine = impl_->engine;
    if (nodes > engine.max_elements_) {
        impl_->resize(std::min(kMaxNodes, std::max(nodes, engine.max_elements_ + engine.max_elements_ / 2)));
    }
    if (engine.link_list_locks_.empty()) std::vector<std::mutex>(engine.max_elements_).swap(engine.link_list_locks_);
}

Graph::Node Graph::insert(float scale, const std::int8_t* code) {
    Engine& engine = impl_->engine;
    // hnswlib updates what carries a known label, so each gets one of its own; the true one is set below.
    const Node node = engine.addPoint(impl_->coded(scale, code).data(), impl_->next_label++, -1);
    engine.setExternalLabel(node, node);
    return node;
}

void Graph::settle() { decltype(impl_->engine.label_lookup_)().swap(impl_->engine.label_lookup_); }

void Graph::search(float scale, const std::int8_t* code, std::size_t effort, const std::function<bool(Node)>& allowed,
                   std::vector<Node>& found) const {
    found.clear();
    if (size() == 0) return;
    const Engine& engine = impl_->engine;
    const void* const query = impl_->coded(scale, code).data();
    const auto distance = [&](Node node) {
        return engine.fstdistfunc_(query, engine.getDataByInternalId(node), engine.dist_func_param_);
    };
    Node at = engine.enterpoint_node_;
    float nearest = distance(at);
    for (auto level = static_cast<std::size_t>(engine.maxlevel_); level > 0; --level) {
        for (bool moved = true; moved;) {
            moved = false;
            for (const Node next : impl_->list(at, level)) {
                const float far = distance(next);
                if (far < nearest) {
                    nearest = far;
                    at = next;
                    moved = true;
                }
            }
        }
    }
    impl_->search_base(query, {nearest, at}, effort, allowed, found);
}

void Graph::Impl::search_base(const void* query, Near entry, std::size_t effort,
                              const std::function<bool(Node)>& allowed, std::vector<Node>& found) const {
    thread_local std::vector<Near> open;  // a heap, the nearest in front
    thread_local std::vector<Near> best;  // a heap, the farthest in front
    const std::size_t bytes = engine.size_data_per_element_;
    open.assign(1, entry);
    best.clear();
    if (!allowed || allowed(entry.second)) best.push_back(entry);
    Visited visited(engine);
    visited.visit(entry.second);
    std::array<Node, kBaseLinks> fresh;
    while (!open.empty()) {
        const Near next = open.front();
        if (best.size() >= effort && next.first > best.front().first) break;
        std::pop_heap(open.begin(), open.end(), std::greater<>());
        open.pop_back();
        std::size_t count = 0;
        for (const Node node : list(next.second, 0)) {
            if (visited.visit(node)) fresh[count++] = node;
        }
        const auto item = [&](std::size_t i) { return engine.data_level0_memory_ + fresh[i] * bytes; };
        for (std::size_t i = 0; i < std::min(count, kAhead); ++i) fetch(item(i), bytes);
        for (std::size_t i = 0; i < count; ++i) {
            if (i + kAhead < count) fetch(item(i + kAhead), bytes);
            const Near one{engine.fstdistfunc_(query, engine.getDataByInternalId(fresh[i]), engine.dist_func_param_),
                           fresh[i]};
            if (best.size() >= effort && one.first >= best.front().first) continue;
            open.push_back(one);
            std::push_heap(open.begin(), open.end(), std::greater<>());
            if (allowed && !allowed(one.second)) continue;
            best.push_back(one);
            std::push_heap(best.begin(), best.end());
            if (best.size() > effort) {
                std::pop_heap(best.begin(), best.end());
                best.pop_back();
            }
        }
    }
    for (const Near& one : best) found.push_back(one.second);
}

void Graph::Impl::choose(Node node, std::size_t level, const std::vector<Node>& among) {
    Queue candidates;
    for (const Node one : among) candidates.emplace(distance(node, one), one);
    const std::size_t most = level == 0 ? kBaseLinks : kLinks;
    engine.getNeighborsByHeuristic2(candidates, most);
    std::vector<Node> chosen;
    for (; !candidates.empty() && chosen.size() < most; candidates.pop()) chosen.push_back(candidates.top().second);
    set_list(node, level, chosen);
}

bool Graph::Impl::bypass(Node node, std::size_t level, const std::vector<bool>& alive) {
    const std::span<const Node> old = list(node, level);
    if (std::all_of(old.begin(), old.end(), [&](Node next) { return alive[next]; })) return false;
    std::vector<Node> heirs;
    std::vector<Node> seen{node};
    std::vector<Node> open{node};
    while (!open.empty() && heirs.size() < kHeirs && seen.size() < 4 * kHeirs) {
        const Node dead = open.back();
        open.pop_back();
        for (const Node next : list(dead, level)) {
            if (std::find(seen.begin(), seen.end(), next) != seen.end()) continue;
            seen.push_back(next);
            (alive[next] ? heirs : open).push_back(next);
        }
    }
    choose(node, level, heirs);
    return true;
}

void Graph::Impl::link_back(Node node, std::size_t level) {
    const std::span<const Node> mine = list(node, level);
    for (const Node next : std::vector<Node>(mine.begin(), mine.end())) {
        const std::span<const Node> theirs = list(next, level);
        if (std::find(theirs.begin(), theirs.end(), node) != theirs.end()) continue;
        std::vector<Node> all(theirs.begin(), theirs.end());
        all.push_back(node);
        if (all.size() <= (level == 0 ? kBaseLinks : kLinks)) {
            set_list(next, level, all);
        } else {
            choose(next, level, all);
        }
    }
}

void Graph::Impl::renumber(const std::vector<bool>& alive) {
    std::vector<Node> renamed(size(), kNone);
    Node count = 0;
    for (Node node = 0; node < size(); ++node) {
        if (!alive[node]) {
            if (engine.element_levels_[node] > 0) std::free(engine.linkLists_[node]);
            engine.element_levels_[node] = 0;
            continue;
        }
        renamed[node] = count;
        if (count != node) {
            std::memcpy(engine.get_linklist0(count), engine.get_linklist0(node), engine.size_data_per_element_);
            engine.element_levels_[count] = std::exchange(engine.element_levels_[node], 0);
            engine.linkLists_[count] = engine.linkLists_[node];
        }
        engine.setExternalLabel(count, count);
        ++count;
    }
    // Nothing of what went stays in the room behind.
    std::memset(engine.get_linklist0(count), 0, (size() - count) * engine.size_data_per_element_);
    engine.cur_element_count = count;
    engine.maxlevel_ = -1;
    engine.enterpoint_node_ = kNone;
    for (Node node = 0; node < count; ++node) {
        const int highest = engine.element_levels_[node];
        for (int level = 0; level <= highest; ++level) {
            for (Node& next : list(node, static_cast<std::size_t>(level))) next = renamed[next];
        }
        if (highest > engine.maxlevel_) {
            engine.maxlevel_ = highest;
            engine.enterpoint_node_ = node;
        }
    }
}

void Graph::keep(const std::vector<bool>& alive) {
    std::vector<std::pair<Node, std::size_t>> changed;
    for (Node node = 0; node < size(); ++node) {
        if (!alive[node]) continue;
        const auto levels = static_cast<std::size_t>(impl_->engine.element_levels_[node]);
        for (std::size_t level = 0; level <= levels; ++level) {
            if (impl_->bypass(node, level, alive)) changed.emplace_back(node, level);
        }
    }
    for (const auto& [node, level] : changed) impl_->link_back(node, level);
    impl_->renumber(alive);
    impl_->resize(std::max(kLeast, size()));
}

Graph::Links Graph::links() const {
    const Engine& engine = impl_->engine;
    Links links;
    links.entry = size() == 0 ? kNone : engine.enterpoint_node_;
    links.base.resize(size() * (1 + kBaseLinks));
    links.levels.resize(size());
    const auto copy = [&](Node node, std::size_t level, Node* place) {
        const std::span<const Node> list = impl_->list(node, level);
        place[0] = static_cast<Node>(list.size());
        std::copy(list.begin(), list.end(), place + 1);
    };
    for (Node node = 0; node < size(); ++node) {
        links.levels[node] = static_cast<std::uint8_t>(engine.element_levels_[node]);
        copy(node, 0, links.base.data() + node * (1 + kBaseLinks));
        for (std::size_t level = 1; level <= links.levels[node]; ++level) {
            links.upper.resize(links.upper.size() + 1 + kLinks);
            copy(node, level, links.upper.data() + links.upper.size() - (1 + kLinks));
        }
    }
    return links;
}

std::unique_ptr<Graph> Graph::restore(std::size_t dim, const Links& links,
                                      const std::function<void(Node, std::byte*)>& copy) {
    const std::size_t count = links.levels.size();
    if (count > kMaxNodes || links.base.size() != count * (1 + kBaseLinks)) damaged("sizes don't fit");
    const auto check = [&](Node node, std::size_t level, const Node* list, std::size_t most) {
        const std::size_t length = list[0];
        if (length > most) damaged("node " + std::to_string(node) + " has too many links");
        for (std::size_t i = 1; i <= length; ++i) {
            if (list[i] >= count || list[i] == node || links.levels[list[i]] < level) {
                damaged("node " + std::to_string(node) + " links to nothing");
            }
        }
        return length;
    };

    auto graph = std::make_unique<Graph>(dim);
    if (count == 0) return graph;
    if (links.entry >= count) damaged("no entry");
    graph->impl_->resize(std::max(kLeast, count));
    Engine& engine = graph->impl_->engine;
    const Node* upper = links.upper.data();
    std::size_t left = links.upper.size();
    std::uint8_t highest = 0;
    for (Node node = 0; node < count; ++node) {
        const std::size_t levels = links.levels[node];
        if (levels > kMaxLevel || left < levels * (1 + kLinks)) damaged("levels don't fit");
        const Node* const base = links.base.data() + node * (1 + kBaseLinks);
        const std::size_t length = check(node, 0, base, kBaseLinks);
        auto* const place = engine.get_linklist0(node);
        std::memset(place, 0, engine.size_data_per_element_);
        std::memcpy(place, base, (1 + length) * sizeof(Node));
        copy(node, reinterpret_cast<std::byte*>(engine.getDataByInternalId(node)));
        engine.setExternalLabel(node, node);
        if (levels != 0) {
            auto* const lists = static_cast<char*>(std::calloc(1, engine.size_links_per_element_ * levels + 8));
            if (lists == nullptr) throw std::bad_alloc();
            engine.linkLists_[node] = lists;
        }
        engine.element_levels_[node] = static_cast<int>(levels);
        engine.cur_element_count = node + 1;  // from here on the destructor frees it
        for (std::size_t level = 1; level <= levels; ++level) {
            const std::size_t some = check(node, level, upper, kLinks);
            std::memcpy(engine.get_linklist(node, static_cast<int>(level)), upper, (1 + some) * sizeof(Node));
            upper += 1 + kLinks;
            left -= 1 + kLinks;
        }
        highest = std::max(highest, links.levels[node]);
    }
    if (left != 0 || links.levels[links.entry] != highest) damaged("levels don't fit");
    engine.enterpoint_node_ = links.entry;
    engine.maxlevel_ = highest;
    return graph;
}

}  // namespace ltm::memory
