#include "memory/index_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <new>
#include <span>
#include <string>
#include <string_view>

#include "memory/checksum.h"
#include "support/error.h"

namespace ltm::memory {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is written as it stands in memory");

constexpr std::string_view kMagic = "LTMVIDX1";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kChunk = std::size_t{1} << 20;  // bytes read, summed and encoded while they are in the cache

struct Header {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t dim;
    std::uint64_t count;
    std::uint64_t generation;
    std::uint64_t nodes;
    std::uint64_t upper;
    std::uint32_t links;
    std::uint32_t entry;
    std::uint32_t embedder_size;
    std::uint32_t zero;
    std::array<char, kMaxEmbedder> embedder;
    std::uint64_t checksum;
};
static_assert(sizeof(Header) == 8 + 2 * 4 + 4 * 8 + 4 * 4 + kMaxEmbedder + 8);

std::uint64_t sum_of(const Header& header) noexcept {
    Checksum sum;
    sum.update(&header, offsetof(Header, checksum));
    return sum.value();
}

std::string text(const std::filesystem::path& path) {
    const auto bytes = path.u8string();
    return {bytes.begin(), bytes.end()};
}

class Writer {
  public:
    explicit Writer(const std::filesystem::path& path) : path_(path), out_(path, std::ios::binary | std::ios::trunc) {}

    void raw(const void* data, std::size_t size) {
        out_.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
        if (!out_) fail();
    }
    template <typename T>
    void part(const T* data, std::size_t count) {
        sum_.update(data, count * sizeof(T));
        raw(data, count * sizeof(T));
    }
    void finish() {
        const std::uint64_t sum = sum_.value();
        raw(&sum, sizeof sum);
        out_.close();
        if (!out_) fail();
    }

  private:
    [[noreturn]] void fail() const {
        const std::string reason = errno != 0 ? std::strerror(errno) : "the stream failed";
        throw Error(ErrorCode::memory, text(path_) + ": the vector index can't be written: " + reason);
    }

    const std::filesystem::path& path_;
    std::ofstream out_;
    Checksum sum_;
};

class Reader {
  public:
    explicit Reader(const std::filesystem::path& path) : path_(path), in_(path, std::ios::binary) {
        if (!in_) fail("can't be opened");
        in_.seekg(0, std::ios::end);
        const auto end = in_.tellg();
        if (end < 0) fail("can't be read");
        size_ = static_cast<std::uint64_t>(end);
        in_.seekg(0);
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw Error(ErrorCode::index_stale, text(path_) + ": vector index " + what + "; build it again");
    }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    void raw(void* data, std::size_t size) {
        in_.read(static_cast<char*>(data), static_cast<std::streamsize>(size));
        if (!in_) fail("is cut off");
    }
    template <typename T>
    void part(T* data, std::size_t count) {
        raw(data, count * sizeof(T));
        sum_.update(data, count * sizeof(T));
    }
    void finish() {
        std::uint64_t sum = 0;
        raw(&sum, sizeof sum);
        if (sum != sum_.value()) fail("is damaged: checksum");
    }

  private:
    const std::filesystem::path& path_;
    std::ifstream in_;
    std::uint64_t size_ = 0;
    Checksum sum_;
};

Header read_header(Reader& in, const IndexOrigin& origin, std::size_t dim) {
    Header header;
    if (in.size() < sizeof header) in.fail("is cut off");
    in.raw(&header, sizeof header);
    if (std::string_view(header.magic.data(), kMagic.size()) != kMagic) in.fail("is none, or of another version");
    if (sum_of(header) != header.checksum) in.fail("is damaged: checksum of its header");
    if (header.version != kVersion || header.links != Graph::kLinks || header.zero != 0)
        in.fail("is of another version");
    if (header.dim != dim) {
        in.fail("has dimension " + std::to_string(header.dim) + ", expected " + std::to_string(dim));
    }
    if (header.generation != origin.generation) {
        in.fail("is of generation " + std::to_string(header.generation) + ", expected " +
                std::to_string(origin.generation));
    }
    if (header.embedder_size > kMaxEmbedder ||
        std::string_view(header.embedder.data(), header.embedder_size) != origin.embedder) {
        in.fail("is of another embedder");
    }
    // Each count is bounded by the size of the file before it is multiplied.
    const std::uint64_t size = in.size();
    if (header.count > size || header.nodes > header.count || header.upper > size) in.fail("is cut off");
    const std::uint64_t row = sizeof(std::int64_t) + dim * sizeof(float);
    const std::uint64_t node =
        2 * sizeof(std::uint32_t) + sizeof(std::uint8_t) + Graph::kBaseLinks * sizeof(Graph::Node);
    const std::uint64_t list = (1 + Graph::kLinks) * sizeof(Graph::Node);
    if (header.count > size / row || header.nodes > size / node || header.upper > size / list ||
        sizeof header + header.count * row + header.nodes * node + header.upper * list + sizeof(std::uint64_t) !=
            size) {
        in.fail("is cut off, or longer than it says");
    }
    return header;
}

void read_rows(Reader& in, const Header& header, std::size_t dim, FlatRows& rows) {
    const std::size_t count = header.count;
    std::vector<std::int64_t> ids(count);
    in.part(ids.data(), count);
    if (!rows.prepare(std::move(ids))) in.fail("is damaged: an id occurs twice");
    const std::size_t step = std::max<std::size_t>(1, kChunk / (dim * sizeof(float)));
    for (std::size_t begin = 0; begin < count; begin += step) {
        const std::size_t end = std::min(count, begin + step);
        in.part(rows.block() + begin * dim, (end - begin) * dim);
        if (!rows.seal(begin, end)) in.fail("is damaged: a vector isn't of length 1");
    }
}

}  // namespace

void write_index_file(const std::filesystem::path& path, const IndexOrigin& origin, const IndexContent& content) {
    const FlatRows& rows = *content.rows;
    const Graph::Links links = content.graph != nullptr ? content.graph->links() : Graph::Links{};
    Header header{};
    std::copy(kMagic.begin(), kMagic.end(), header.magic.begin());
    header.version = kVersion;
    header.dim = static_cast<std::uint32_t>(content.dim);
    header.count = rows.size();
    header.generation = origin.generation;
    header.nodes = links.levels.size();
    header.upper = links.upper.size() / (1 + Graph::kLinks);
    header.links = Graph::kLinks;
    header.entry = links.entry;
    header.embedder_size = static_cast<std::uint32_t>(origin.embedder.size());
    std::copy(origin.embedder.begin(), origin.embedder.end(), header.embedder.begin());
    header.checksum = sum_of(header);

    errno = 0;
    Writer out(path);
    out.raw(&header, sizeof header);
    out.part(rows.ids().data(), rows.size());
    const std::size_t step = std::max<std::size_t>(1, kChunk / (content.dim * sizeof(float)));
    for (std::size_t row = 0; row < rows.size(); row += step) {
        out.part(rows.vector(row), std::min(step, rows.size() - row) * content.dim);
    }
    if (content.graph != nullptr) out.part(content.places->data(), links.levels.size());
    out.part(links.levels.data(), links.levels.size());
    out.part(links.base.data(), links.base.size());
    out.part(links.upper.data(), links.upper.size());
    out.finish();
}

std::unique_ptr<Graph> read_index_file(const std::filesystem::path& path, const IndexOrigin& origin, std::size_t dim,
                                       FlatRows& rows, std::vector<std::uint32_t>& places) {
    Reader in(path);
    const Header header = read_header(in, origin, dim);
    read_rows(in, header, dim, rows);
    Graph::Links links;
    links.entry = header.entry;
    places.resize(header.nodes);
    links.levels.resize(header.nodes);
    links.base.resize(header.nodes * (1 + Graph::kBaseLinks));
    links.upper.resize(header.upper * (1 + Graph::kLinks));
    in.part(places.data(), places.size());
    in.part(links.levels.data(), links.levels.size());
    in.part(links.base.data(), links.base.size());
    in.part(links.upper.data(), links.upper.size());
    in.finish();
    if (header.nodes == 0) return nullptr;
    std::vector<bool> taken(rows.size());
    for (const std::uint32_t row : places) {
        if (row >= rows.size() || taken[row]) in.fail("is damaged: a node without a row of its own");
        taken[row] = true;
    }
    return Graph::restore(dim, links, [&](Graph::Node node, std::byte* place) {
        const float scale = rows.scale(places[node]);
        std::memcpy(place, &scale, sizeof scale);
        std::memcpy(place + sizeof scale, rows.code(places[node]), dim);
    });
}

}  // namespace ltm::memory
