// The program made deterministic, on demand.
//
// A state is a shape (which instructions the automaton stands at, and which counts are live at each) with the values of
// those counts. Shapes are shared: a slot of 400 characters is one shape whose single value runs from 0 to 400. A
// transition is computed once, by simulation, together with the ranges of values for which the simulation would have
// taken the same decisions; afterwards it is a table look-up with a range check (compare Holík, Turoňová et al.,
// "Fast matching of regular patterns with counting-set automata", which determinises counters likewise).
// Call stacks (grammars that truly recurse) are part of the shape.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/program.h"

namespace ltm::grammar {

constexpr std::size_t kMaxValues = 6;

// Values beyond kMaxValues are written into the shape itself, which is then shared less but right.
struct State {
    std::uint32_t shape = 0;  // 0: nothing can follow and nothing is complete (dead)
    PartialChar partial;
    std::array<std::uint32_t, kMaxValues> values{};

    [[nodiscard]] bool dead() const noexcept { return shape == 0; }
};

// A count at a thread: a value of the state, or a constant.
class Operand {
  public:
    static Operand constant(std::uint32_t value) noexcept { return Operand(value); }
    static Operand value(std::uint32_t index) noexcept { return Operand(kFlag | index); }
    [[nodiscard]] bool is_value() const noexcept { return (bits_ & kFlag) != 0; }
    [[nodiscard]] std::uint32_t index() const noexcept { return bits_ & ~kFlag; }
    [[nodiscard]] std::uint32_t bits() const noexcept { return bits_; }
    [[nodiscard]] std::uint32_t get(const State& state) const noexcept {
        return is_value() ? state.values[index()] : bits_;
    }

  private:
    static constexpr std::uint32_t kFlag = 1U << 31U;
    explicit Operand(std::uint32_t bits) noexcept : bits_(bits) {}
    std::uint32_t bits_;
};

// One way of standing in the grammar: an instruction that takes a character (or the end), its counts, its call stack.
struct ThreadView {
    std::uint32_t pc;
    std::uint32_t stack;
    const Operand* counts;  // program.depth(pc) of them, outermost first
};

// A slot in which single characters of `set` may be written, `count` of at most `max` already being there.
struct TextLoop {
    std::uint32_t set;
    std::uint32_t thread;  // of the shape
    Operand count;         // constant 0 with max kUnbounded: no bound
    std::uint32_t max;
};

struct Shape {
    std::uint32_t first_operand = 0;
    std::uint32_t threads = 0;
    std::uint32_t first_thread = 0;
    std::uint32_t first_loop = 0;
    std::uint32_t loops = 0;
    std::uint32_t row = 0;         // offset of its transition row, if rows are dense
    std::uint32_t first_live = 0;  // offset of its bit set of classes
    std::uint8_t values = 0;
    bool complete = false;    // a document may end here
    bool wide = false;        // some character past U+007F may follow
    std::uint32_t least = 0;  // least and greatest character that may follow; 0 if none may
    std::uint32_t greatest = 0;
};

// A computed transition: holds if every value i of the state is in [low[i], high[i]].
struct Transition {
    std::uint32_t next = 0;                        // shape
    std::uint32_t alternative = 0;                 // another transition for other values, or 0
    std::uint8_t checked = 0;                      // values 0 … checked-1 have a range worth looking at
    std::uint8_t values = 0;                       // of the next state
    std::array<std::int8_t, kMaxValues> source{};  // which value it comes from; -1: a constant
    std::array<std::uint32_t, kMaxValues> add{};   // added to it, or the constant
    std::array<std::uint32_t, kMaxValues> low{};
    std::array<std::uint32_t, kMaxValues> width{};  // high - low
};

struct Frame {
    std::uint32_t parent;
    std::uint32_t depth;
    std::uint32_t pc;                   // where to go on
    std::vector<std::uint32_t> counts;  // of the caller
};

// Not thread-safe: whoever shares it locks it.
class Automaton {
  public:
    explicit Automaton(const Program& program, const Limits& limits = {});

    [[nodiscard]] const State& start() const noexcept { return start_; }
    [[nodiscard]] const Program& program() const noexcept { return program_; }
    [[nodiscard]] const Limits& limits() const noexcept { return limits_; }

    // Takes one byte. False: nothing that begins so is in the language, and `state` is left in an unspecified state.
    bool step(State& state, std::uint8_t byte);
    // Takes one whole character; `state` stands at a character's boundary.
    bool step_class(State& state, std::uint32_t cls);
    // The transition that holds here, also if it leads nowhere (next 0); nullptr: no counts let `cls` follow.
    [[nodiscard]] const Transition* any_transition(const State& state, std::uint32_t cls);
    static void follow(const Transition& transition, State& state) noexcept;
    // True if the bytes read so far of a character can become one that may follow.
    [[nodiscard]] bool viable(const State& state) const;

    [[nodiscard]] bool complete(const State& state) const noexcept {
        return state.partial.none() && shapes_[state.shape].complete;
    }
    [[nodiscard]] const Shape& shape(const State& state) const noexcept { return shapes_[state.shape]; }
    [[nodiscard]] ThreadView thread(const Shape& shape, std::size_t i) const noexcept {
        const auto& [pc, stack, operand] = threads_[shape.first_thread + i];
        return {pc, stack, operands_.data() + operand};
    }
    [[nodiscard]] const TextLoop* loops(const Shape& shape) const noexcept { return loops_.data() + shape.first_loop; }
    [[nodiscard]] bool live(const Shape& shape, std::uint32_t cls) const noexcept {
        return ((live_[shape.first_live + (cls >> 6U)] >> (cls & 63U)) & 1U) != 0;
    }
    [[nodiscard]] const Frame& frame(std::uint32_t stack) const noexcept { return frames_[stack]; }
    std::uint32_t push_frame(std::uint32_t parent, std::uint32_t pc, std::vector<std::uint32_t> counts);

    // Bytes that must come next whatever the document: everything that the grammar determines from here, until a choice
    // or the possible end. Ends at a character's boundary or inside a character whose first bytes are determined.
    // Stops after `most` bytes. `state` moves along.
    [[nodiscard]] std::string forced(State& state, std::size_t most);

    // A new call: work done from now on counts against Limits::work.
    void begin_call() noexcept { work_ = 0; }
    void spend(std::uint64_t steps);

    [[nodiscard]] std::size_t shape_count() const noexcept { return shapes_.size(); }
    [[nodiscard]] std::size_t transition_count() const noexcept { return transitions_.size(); }
    [[nodiscard]] std::size_t bytes() const noexcept;

  private:
    struct ThreadRecord {
        std::uint32_t pc;
        std::uint32_t stack;
        std::uint32_t operand;
    };
    friend class Simulation;

    [[nodiscard]] std::uint32_t* slot(const State& state, std::uint32_t cls);
    const Transition* simulate(const State& state, std::uint32_t cls, std::uint32_t first);
    std::uint32_t intern(const std::vector<std::uint32_t>& key, std::uint8_t values);

    const Program& program_;
    Limits limits_;
    State start_;
    std::vector<Shape> shapes_;
    std::vector<ThreadRecord> threads_;
    std::vector<Operand> operands_;
    std::vector<TextLoop> loops_;
    std::vector<std::uint64_t> live_;
    std::vector<std::uint32_t> rows_;
    std::unordered_map<std::uint64_t, std::uint32_t> sparse_rows_;
    std::vector<Transition> transitions_;
    std::vector<Frame> frames_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> frame_index_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> shape_index_;
    std::vector<std::vector<std::uint32_t>> shape_keys_;
    std::uint64_t work_ = 0;
    std::size_t bytes_ = 0;
    bool dense_ = true;
};

}  // namespace ltm::grammar
