#include "grammar/grammar.h"

#include <utility>

#include "grammar/gbnf_reader.h"

namespace ltm::grammar {
namespace {

// Bytes read under one allowance of Limits::work.
constexpr std::size_t kBytesPerCall = 64;

// SplitMix64: the standard library's distributions differ between platforms.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() noexcept {
        state_ += 0x9E3779B97F4A7C15ULL;
        std::uint64_t x = state_;
        x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
        x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
        return x ^ (x >> 31U);
    }
    std::uint32_t below(std::size_t n) noexcept { return static_cast<std::uint32_t>(next() % n); }

  private:
    std::uint64_t state_;
};

// A member of a set: mostly plain letters, blanks and punctuation where it has them, else anything.
std::uint32_t pick(const CodePointSet& set, Random& random) {
    static constexpr CodePointSet::Range kUsual[] = {{'a', 'z'},   {'a', 'z'},     {' ', ' '},
                                                     {0x21, 0x7E}, {0x430, 0x44F}, {0x4E00, 0x4FFF}};
    if (random.below(4) != 0) {
        const auto& [low, high] = kUsual[random.below(std::size(kUsual))];
        const std::uint32_t wanted = low + random.below(high - low + 1);
        if (set.contains(wanted)) return wanted;
        if (const std::uint32_t found = set.first_in(low, high); found != 0) return found;
    }
    const auto& [low, high] = set.ranges()[random.below(set.ranges().size())];
    return low + random.below(high - low + 1);
}

}  // namespace

Grammar::Grammar(std::string text, std::string root, const Limits& limits)
    : text_(std::move(text)),
      root_(std::move(root)),
      limits_(limits),
      program_(compile(read_gbnf(text_, root_, limits_), limits_)),
      distances_(program_) {}

bool Grammar::accepts(std::string_view bytes) const {
    Automaton automaton(program_, limits_);
    State state = automaton.start();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i % kBytesPerCall == 0) automaton.begin_call();
        if (!automaton.step(state, static_cast<std::uint8_t>(bytes[i]))) return false;
    }
    return automaton.complete(state);
}

std::size_t Grammar::valid_prefix(std::string_view bytes) const {
    Automaton automaton(program_, limits_);
    State state = automaton.start();
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i % kBytesPerCall == 0) automaton.begin_call();
        if (!automaton.step(state, static_cast<std::uint8_t>(bytes[i]))) return i;
    }
    return bytes.size();
}

std::string Grammar::sample_bytes(std::uint64_t seed, std::size_t length) const {
    Random random(seed);
    Automaton automaton(program_, limits_);
    State state = automaton.start();
    std::string document;
    for (std::size_t i = 0; document.size() < length; ++i) {
        if (i % kBytesPerCall == 0) automaton.begin_call();
        const Shape shape = automaton.shape(state);
        if (shape.complete && (shape.threads == 1 || random.below(24) == 0)) return document;
        const ThreadView view = automaton.thread(shape, random.below(shape.threads));
        const Instruction& instruction = program_.code[view.pc];
        if (instruction.op != Op::chars) continue;
        const std::uint32_t cp = pick(program_.sets[instruction.a].points, random);
        State next = state;
        if (!automaton.step_class(next, program_.class_of(cp))) break;
        state = next;
        append_utf8(document, cp);
    }
    automaton.begin_call();
    return document + completion(distances_, automaton, state);
}

std::string Grammar::shortest() const {
    Automaton automaton(program_, limits_);
    return completion(distances_, automaton, automaton.start());
}

}  // namespace ltm::grammar
