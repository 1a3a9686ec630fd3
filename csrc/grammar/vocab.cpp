#include "grammar/vocab.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "support/error.h"

namespace ltm::grammar {
namespace {

constexpr std::uint32_t kMagic = 0x564D544CU;  // "LTMV"
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMostTokens = 1U << 24U;

struct Block {
    std::uint32_t low;
    std::uint32_t high;
    unsigned kind;
};

// Sorted. Punctuation of ASCII gets kinds of its own below.
constexpr Block kBlocks[] = {
    {0x01, 0x08, 0},        {'\t', '\t', 1},        {'\n', '\n', 2},         {0x0B, 0x0C, 0},
    {'\r', '\r', 3},        {0x0E, 0x1F, 0},        {'0', '9', 4},           {'A', 'Z', 5},
    {'a', 'z', 6},          {0x7F, 0x7F, 0},        {0x80, 0x84, 7},         {0x85, 0x85, 8},
    {0x86, 0x9F, 7},        {0xA0, 0xA0, 9},        {0xA1, 0xAC, 10},        {0xAD, 0xAD, 11},
    {0xAE, 0x167F, 10},     {0x1680, 0x1680, 9},    {0x1681, 0x180D, 10},    {0x180E, 0x180E, 11},
    {0x180F, 0x1FFF, 10},   {0x2000, 0x200A, 9},    {0x200B, 0x200F, 11},    {0x2010, 0x2027, 12},
    {0x2028, 0x2029, 13},   {0x202A, 0x202E, 11},   {0x202F, 0x202F, 9},     {0x2030, 0x205E, 12},
    {0x205F, 0x205F, 9},    {0x2060, 0x206F, 11},   {0x2070, 0x2FFF, 10},    {0x3000, 0x3000, 9},
    {0x3001, 0xD7FF, 10},   {0xE000, 0xF8FF, 14},   {0xF900, 0xFDCF, 10},    {0xFDD0, 0xFDEF, 15},
    {0xFDF0, 0xFEFE, 10},   {0xFEFF, 0xFEFF, 16},   {0xFF00, 0xFFEF, 10},    {0xFFF0, 0xFFFF, 15},
    {0x10000, 0x1FFFD, 17}, {0x1FFFE, 0x1FFFF, 15}, {0x20000, 0x2FFFD, 17},  {0x2FFFE, 0x2FFFF, 15},
    {0x30000, 0x3FFFD, 17}, {0x3FFFE, 0x3FFFF, 15}, {0x40000, 0x10FFFF, 18},
};
constexpr unsigned kFirstPunctuation = 20;

template <typename Visit>
void each_block(const Visit& visit) {
    unsigned next = kFirstPunctuation;
    for (std::uint32_t c = 0x20; c < 0x7F; ++c) {
        const bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter) visit(c, c, next++);
    }
    for (const Block& block : kBlocks) visit(block.low, block.high, block.kind);
}

// One entry per code point of the first plane: vocabularies are read through it by the million.
struct KindTable {
    std::vector<std::uint8_t> plane = std::vector<std::uint8_t>(0x10000, 63);  // NUL and surrogates: malformed
    KindTable() {
        each_block([this](std::uint32_t low, std::uint32_t high, unsigned kind) {
            for (std::uint32_t c = low; c <= high && c < 0x10000; ++c) plane[c] = static_cast<std::uint8_t>(kind);
        });
    }
};

std::uint64_t checksum(std::string_view bytes) noexcept {
    std::uint64_t a = 0x9E3779B97F4A7C15ULL ^ bytes.size();
    std::uint64_t b = 0xC2B2AE3D27D4EB4FULL;
    std::size_t i = 0;
    for (; i + 16 <= bytes.size(); i += 16) {
        std::uint64_t x = 0;
        std::uint64_t y = 0;
        std::memcpy(&x, bytes.data() + i, 8);
        std::memcpy(&y, bytes.data() + i + 8, 8);
        a = (a ^ x) * 0x100000001B3ULL;
        a ^= a >> 32U;
        b = (b ^ y) * 0x9FB21C651E98DF25ULL;
        b ^= b >> 29U;
    }
    for (; i < bytes.size(); ++i) a = (a ^ static_cast<std::uint8_t>(bytes[i])) * 0x100000001B3ULL;
    return a ^ (b * 0x9E3779B97F4A7C15ULL);
}

std::uint64_t sort_key(std::string_view piece) noexcept {
    std::uint64_t key = 0;
    for (std::size_t i = 0; i < 8; ++i) {
        key = (key << 8U) | (i < piece.size() ? static_cast<std::uint8_t>(piece[i]) : 0U);
    }
    return key;
}

}  // namespace

namespace kinds {

std::uint64_t of_range(std::uint32_t low, std::uint32_t high) noexcept {
    static const KindTable table;
    if (low == high && low < 0x10000) return 1ULL << table.plane[low];
    std::uint64_t bits = 0;
    each_block([&](std::uint32_t from, std::uint32_t to, unsigned kind) {
        if (from <= high && low <= to) bits |= 1ULL << kind;
    });
    return bits;
}

std::uint64_t inside(const CodePointSet& set) noexcept {
    std::uint64_t bits = 0;
    std::uint64_t outside = 0;
    each_block([&](std::uint32_t from, std::uint32_t to, unsigned kind) {
        (set.covers(from, to) ? bits : outside) |= 1ULL << kind;
    });
    return bits & ~outside;
}

std::uint64_t touching(const CodePointSet& set) noexcept {
    std::uint64_t bits = 0;
    each_block([&](std::uint32_t from, std::uint32_t to, unsigned kind) {
        if (set.first_in(from, to) != 0) bits |= 1ULL << kind;
    });
    return bits;
}

}  // namespace kinds

Vocab::Vocab(const std::vector<std::string_view>& pieces, const std::vector<TokenKind>& token_kinds,
             const VocabOptions& options) {
    if (pieces.size() != token_kinds.size() || pieces.empty() || pieces.size() > kMostTokens) {
        throw Error(ErrorCode::invalid_argument, "vocabulary: " + std::to_string(pieces.size()) + " pieces and " +
                                                     std::to_string(token_kinds.size()) + " kinds, expected 1 to " +
                                                     std::to_string(kMostTokens) + " of both");
    }
    size_ = static_cast<std::uint32_t>(pieces.size());
    offsets_.reserve(pieces.size() + 1);
    std::size_t total = 0;
    for (const std::string_view piece : pieces) total += piece.size();
    if (total > (1ULL << 31U)) throw Error(ErrorCode::invalid_argument, "vocabulary: more than 2 GiB of text");
    bytes_.reserve(total);
    kinds_.reserve(pieces.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
        bytes_.append(pieces[i]);
        const bool unusable = pieces[i].empty() || pieces[i].front() == '\0' || pieces[i].size() > options.longest;
        const TokenKind kind = token_kinds[i] == TokenKind::text && unusable ? TokenKind::excluded : token_kinds[i];
        kinds_.push_back(static_cast<std::uint8_t>(kind));
    }
    offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
    build(options.longest);
    derive();
}

void Vocab::build(std::size_t) {
    struct Entry {
        std::uint64_t key;
        std::uint32_t token;
    };
    std::vector<Entry> entries;
    entries.reserve(size_);
    for (std::uint32_t token = 0; token < size_; ++token) {
        if (kind(token) == TokenKind::text) entries.push_back({sort_key(piece(token)), token});
    }
    // Bucket by the first two bytes, then sort each bucket by the first eight and only then by the whole.
    std::vector<std::uint32_t> begin(65537, 0);
    for (const Entry& entry : entries) ++begin[(entry.key >> 48U) + 1];
    for (std::size_t i = 0; i < 65536; ++i) begin[i + 1] += begin[i];
    std::vector<Entry> sorted(entries.size());
    std::vector<std::uint32_t> next(begin.begin(), begin.end() - 1);
    for (const Entry& entry : entries) sorted[next[entry.key >> 48U]++] = entry;
    for (std::size_t i = 0; i < 65536; ++i) {
        if (begin[i + 1] - begin[i] < 2) continue;
        std::sort(sorted.begin() + begin[i], sorted.begin() + begin[i + 1], [this](const Entry& a, const Entry& b) {
            if (a.key != b.key) return a.key < b.key;
            const int order = piece(a.token).compare(piece(b.token));
            return order != 0 ? order < 0 : a.token < b.token;
        });
    }

    order_.reserve(sorted.size());
    nodes_.reserve(sorted.size() * 5 / 2);
    nodes_.push_back({0, 0, 0, 0, 0, 1, 0});
    // What is known along the current path, by depth.
    struct Level {
        std::uint32_t node;
        std::uint16_t chars;  // most characters that begin below
        PartialChar partial;
        bool broken;          // not UTF-8
        bool begins;          // a character begins with this byte
        std::uint64_t kinds;  // of the character that this byte belongs to, and of those below
    };
    std::vector<Level> path{{0, 0, {}, false, false, 0}};
    std::unordered_map<std::uint64_t, std::uint16_t> numbers;
    kind_sets_.push_back(~0ULL);  // number 0: anything
    std::uint64_t last_kinds = 0;
    std::uint16_t last_number = 0;
    const auto number_of = [&](std::uint64_t kinds) -> std::uint16_t {
        if (kinds == last_kinds && last_number != 0) return last_number;
        const auto [it, added] = numbers.emplace(kinds, 0);
        if (added && kind_sets_.size() < 65535) {
            it->second = static_cast<std::uint16_t>(kind_sets_.size());
            kind_sets_.push_back(kinds);
        }
        last_kinds = kinds;
        last_number = it->second;
        return last_number;
    };
    const auto close_to = [&](std::size_t depth) {
        while (path.size() > depth + 1) {
            const Level level = path.back();
            path.pop_back();
            Node& node = nodes_[level.node];
            node.end = static_cast<std::uint32_t>(nodes_.size());
            node.chars = static_cast<std::uint16_t>(level.chars + (level.begins ? 1 : 0));
            node.kinds = number_of(level.kinds);
            Level& parent = path.back();
            parent.chars = std::max(parent.chars, node.chars);
            parent.kinds |= level.kinds;
        }
    };
    for (const Entry& entry : sorted) {
        const std::string_view text = piece(entry.token);
        longest_ = std::max(longest_, text.size());
        std::size_t common = 0;
        while (common + 1 < path.size() && common < text.size() &&
               nodes_[path[common + 1].node].byte == static_cast<std::uint8_t>(text[common])) {
            ++common;
        }
        close_to(common);
        for (std::size_t i = common; i < text.size(); ++i) {
            const auto byte = static_cast<std::uint8_t>(text[i]);
            const Level& parent = path.back();
            Level level{
                static_cast<std::uint32_t>(nodes_.size()), 0, parent.partial, parent.broken, parent.partial.none(), 0};
            std::uint32_t cp = 0;
            const auto status = level.broken ? PartialChar::Status::bad : level.partial.push(byte, cp);
            if (status == PartialChar::Status::bad) {
                // A token may begin inside a character; such tokens are walked byte by byte.
                level.broken = true;
                level.begins = false;
                level.partial = {};
                level.kinds = kinds::kMalformed;
            } else if (status == PartialChar::Status::complete) {
                level.kinds = kinds::of_range(cp, cp);
            }
            nodes_.push_back({0, static_cast<std::uint32_t>(order_.size()), static_cast<std::uint16_t>(i + 1), 0, byte,
                              static_cast<std::uint8_t>(level.begins ? 1 : 0), 0});
            path.push_back(level);
        }
        if (Level& last = path.back(); !last.partial.none()) {
            // The token ends inside a character: all that it may become counts.
            last.kinds |= kinds::of_range(last.partial.low(), last.partial.high()) | kinds::kRagged;
        }
        order_.push_back(entry.token);
    }
    close_to(0);
    nodes_[0].end = static_cast<std::uint32_t>(nodes_.size());
    nodes_[0].chars = path[0].chars;
    nodes_[0].kinds = number_of(path[0].kinds);
    nodes_.push_back(
        {static_cast<std::uint32_t>(nodes_.size() + 1), static_cast<std::uint32_t>(order_.size()), 0, 0, 0, 0, 0});
}

void Vocab::derive() {
    text_mask_.assign(words(), 0);
    for (std::uint32_t token = 0; token < size_; ++token) {
        if (kind(token) == TokenKind::text) text_mask_[token >> 5U] |= 1U << (token & 31U);
        if (kind(token) == TokenKind::end) ends_.push_back(token);
    }
    for (std::uint32_t i = 1; i < node_count(); i = nodes_[i].end) root_children_[nodes_[i].byte] = i;
    for (std::uint32_t byte = 0x80; byte < 0xC0; ++byte) {
        can_finish_ = can_finish_ && root_children_[byte] != 0 && has_token(root_children_[byte]);
    }
}

namespace {

template <typename T>
void put(std::string& blob, const T* data, std::size_t count) {
    if (count > 0) blob.append(reinterpret_cast<const char*>(data), count * sizeof(T));
}

struct Header {
    std::uint32_t magic;
    std::uint32_t version;
    std::uint64_t sum;  // of everything after the header
    std::uint32_t tokens;
    std::uint32_t nodes;
    std::uint32_t ordered;
    std::uint32_t kind_sets;
    std::uint32_t longest;
    std::uint32_t text;
};

}  // namespace

std::string Vocab::serialise() const {
    Header header{kMagic,
                  kVersion,
                  0,
                  size_,
                  static_cast<std::uint32_t>(nodes_.size()),
                  static_cast<std::uint32_t>(order_.size()),
                  static_cast<std::uint32_t>(kind_sets_.size()),
                  static_cast<std::uint32_t>(longest_),
                  static_cast<std::uint32_t>(bytes_.size())};
    std::string blob;
    blob.reserve(sizeof(Header) + nodes_.size() * sizeof(Node) + bytes_.size() + size_ * 9 + kind_sets_.size() * 8);
    put(blob, &header, 1);
    put(blob, kind_sets_.data(), kind_sets_.size());
    put(blob, nodes_.data(), nodes_.size());
    put(blob, order_.data(), order_.size());
    put(blob, offsets_.data(), offsets_.size());
    put(blob, kinds_.data(), kinds_.size());
    blob.append(bytes_);
    header.sum = checksum(std::string_view(blob).substr(sizeof(Header)));
    std::memcpy(blob.data(), &header, sizeof(Header));
    return blob;
}

Vocab Vocab::deserialise(std::string_view blob) {
    const auto damaged = [](const char* what) -> Error {
        return {ErrorCode::invalid_argument,
                std::string("vocabulary cache: ") + what + "; delete it and it is built again"};
    };
    Header header{};
    if (blob.size() < sizeof(Header)) throw damaged("it is cut");
    std::memcpy(&header, blob.data(), sizeof(Header));
    if (header.magic != kMagic) throw damaged("it is something else");
    if (header.version != kVersion) throw damaged("it is of another version");
    const std::uint64_t expected = sizeof(Header) + std::uint64_t{header.kind_sets} * 8 +
                                   std::uint64_t{header.nodes} * sizeof(Node) + std::uint64_t{header.ordered} * 4 +
                                   (std::uint64_t{header.tokens} + 1) * 4 + header.tokens + header.text;
    if (blob.size() != expected || header.nodes < 2 || header.tokens == 0 || header.longest > 0xFFFF)
        throw damaged("its length is wrong");
    if (checksum(blob.substr(sizeof(Header))) != header.sum) throw damaged("its checksum is wrong");
    Vocab vocab;
    std::size_t at = sizeof(Header);
    const auto take = [&](auto& into, std::size_t count) {
        into.resize(count);
        const std::size_t size = count * sizeof(into[0]);
        std::memcpy(into.data(), blob.data() + at, size);
        at += size;
    };
    vocab.size_ = header.tokens;
    vocab.longest_ = header.longest;
    take(vocab.kind_sets_, header.kind_sets);
    take(vocab.nodes_, header.nodes);
    take(vocab.order_, header.ordered);
    take(vocab.offsets_, header.tokens + std::size_t{1});
    take(vocab.kinds_, header.tokens);
    vocab.bytes_.assign(blob.substr(at));
    // The checksum says that the bytes are what was written; these say that what was written can be walked.
    const std::uint32_t nodes = vocab.node_count();
    std::vector<std::uint32_t> open;  // ends of the subtrees that the node stands in
    for (std::uint32_t i = 0; i < nodes; ++i) {
        const Node& node = vocab.nodes_[i];
        const Node& next = vocab.nodes_[i + 1];
        while (!open.empty() && open.back() == i) open.pop_back();
        if (node.end <= i || node.end > (open.empty() ? nodes : open.back()) || node.depth != open.size() ||
            node.depth > vocab.longest_ || node.token > next.token || next.token > vocab.order_.size() ||
            node.kinds >= vocab.kind_sets_.size() || (i == 0 && node.end != nodes)) {
            throw damaged("its trie is broken");
        }
        open.push_back(node.end);
    }
    for (const std::uint32_t token : vocab.order_) {
        if (token >= vocab.size_) throw damaged("its order is broken");
    }
    for (std::uint32_t i = 0; i < vocab.size_; ++i) {
        if (vocab.offsets_[i] > vocab.offsets_[i + 1] || vocab.kinds_[i] > 2) throw damaged("its text is broken");
    }
    if (vocab.offsets_.back() != vocab.bytes_.size()) throw damaged("its text is broken");
    vocab.derive();
    return vocab;
}

std::size_t Vocab::bytes() const noexcept {
    return bytes_.size() + offsets_.size() * 4 + kinds_.size() + nodes_.size() * sizeof(Node) + order_.size() * 4 +
           kind_sets_.size() * 8 + text_mask_.size() * 4;
}

bool looks_like_control(std::string_view piece) noexcept {
    const auto word = [](std::string_view text) {
        if (text.empty()) return false;
        for (const char c : text) {
            const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
            if (!letter) return false;
        }
        return true;
    };
    if (piece.size() < 4) return false;
    if (piece.front() == '<' && piece.back() == '>') {
        const std::string_view inner = piece.substr(1, piece.size() - 2);
        if (inner.size() > 2 && inner.front() == '|' && inner.back() == '|') return true;
        constexpr std::string_view bar = "｜";
        if (inner.size() > 2 * bar.size() && inner.substr(0, bar.size()) == bar) return true;
        if (inner.substr(0, 6) == "unused" && word(inner)) return true;
        return inner.find('_') != std::string_view::npos && word(inner);
    }
    if (piece.front() == '[' && piece.back() == ']') {
        std::string_view inner = piece.substr(1, piece.size() - 2);
        if (inner.front() == '/') inner.remove_prefix(1);
        if (inner.size() < 3) return false;
        for (const char c : inner) {
            if (!((c >= 'A' && c <= 'Z') || c == '_')) return false;
        }
        return true;
    }
    return false;
}

}  // namespace ltm::grammar
