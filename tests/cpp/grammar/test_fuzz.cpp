// Fuzzing: random and mutated GBNF, then random bytes, tokens, masks, landing and cache files on what compiles.
// Usage: test_fuzz [inputs] [seed]; a few hundred by default, a million by `make fuzz` with LTM_SANITIZE. Prints what
// it did, each input over a second and the growth over 256 MB, and fails on them; what is thrown must be ltm::Error.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "grammar/matcher.h"
#include "random_gbnf.h"
#include "support/error.h"
#include "toy_vocab.h"

using namespace ltm::grammar;

namespace {

constexpr double kMostMs = 1000;  // of processor time, for one input
constexpr long kMostMb = 256;     // that a run may grow by

const char* const kSeeds[] = {
    "root ::= \"scene:\\n\" slot{1,3}\nslot ::= \"  \" [^\"\\\\\\x00-\\x1f]{1,40} \"\\n\"\n",
    "root ::= object\nobject ::= \"{\" (string \":\" value)? \"}\"\nvalue ::= object | string\nstring ::= \"\\\"\" "
    "[a-z]* \"\\\"\"",
    "root ::= (expr \"=\" term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
    "root ::= \"a\"? | [\\u0416-\\U0001F600] # comment\n",
    "root ::= (\"x\"{2,} | .{0,9}){3,70}",
};
const char* const kTokens[] = {"::=",   "|",      "(",  ")",    "*",   "+", "?",       "{",   "}",
                               "{3,",   "{0,99}", ",",  "\"",   "[",   "]", "[^",      "\\x", "\\u00e9",
                               "\n",    " ",      "#",  "root", "a-b", "1", "9999999", ".",   "-",
                               "\"a\"", "[a-z]",  "\\", "\xff", "Ж",   "<", "!"};

std::string mutate(std::string text, random_gbnf::Random& random) {
    for (std::uint32_t i = 1 + random.below(4); i > 0; --i) {
        const std::size_t at = random.below(static_cast<std::uint32_t>(text.size() + 1));
        switch (random.below(5)) {
            case 0:
                text.insert(at, kTokens[random.below(std::size(kTokens))]);
                break;
            case 1:
                text.erase(at, 1 + random.below(6));
                break;
            case 2:
                text.insert(at,
                            text.substr(random.below(static_cast<std::uint32_t>(text.size() + 1)), random.below(20)));
                break;
            case 3:
                if (at < text.size()) text[at] = static_cast<char>(random.below(256));
                break;
            default:
                text += kTokens[random.below(std::size(kTokens))];
        }
    }
    return text;
}

struct Counts {
    std::size_t inputs = 0;
    std::size_t compiled = 0;
    std::size_t refused = 0;
    std::size_t stopped = 0;  // compiled, then past a limit
    std::size_t steps = 0;
    std::size_t slow = 0;  // over the limit
    double slowest_ms = 0;
};

void expect(bool holds, const char* what, const std::string& text) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n%s\n", what, text.c_str());
    std::abort();
}

long peak_mb() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;
}

void use(const std::string& text, const toy::ToyVocab& toy, random_gbnf::Random& random, Counts& counts) {
    std::shared_ptr<const Grammar> grammar;
    try {
        // Mostly tighter than the default, so that the limits themselves are met often.
        Limits limits;
        if (random.below(4) != 0) {
            limits.work = 400'000;
            limits.state_bytes = 2U << 20U;
            limits.completion_bytes = 20'000;
        }
        grammar = std::make_shared<const Grammar>(text, "root", limits);
        ++counts.compiled;
    } catch (const ltm::Error&) {
        ++counts.refused;
        return;
    }
    try {
        const std::string document = grammar->sample_bytes(random.next(), random.below(40));
        if (document.size() < 400) expect(grammar->accepts(document), "a sample is not accepted", text);
        std::string noise;
        for (std::uint32_t i = random.below(20); i > 0; --i) noise.push_back(static_cast<char>(random.below(256)));
        (void)grammar->valid_prefix(noise);
        if (!document.empty() && document.size() < 4000) {
            std::string damaged = document;
            damaged[random.below(static_cast<std::uint32_t>(damaged.size()))] ^=
                static_cast<char>(1U << random.below(8));
            expect(grammar->valid_prefix(damaged) <= damaged.size(), "more is valid than there is", text);
        }

        const auto cache = std::make_shared<MaskCache>(grammar, toy.vocab);
        Matcher matcher(cache);
        const std::uint32_t least = matcher.cost_to_end();
        const bool bounded = least < 100 && random.below(2) == 0;
        std::uint32_t left = least + random.below(10);
        for (int i = 0; i < 12; ++i) {
            const MaskPtr mask = bounded ? matcher.mask(left) : matcher.mask();
            expect(!bounded || mask->count > 0, "no way to land", text);
            if (mask->count == 0) break;
            std::uint32_t pick = random.below(toy.vocab->size());
            for (std::uint32_t n = 0; n < toy.vocab->size() && !mask->allows(pick); ++n)
                pick = (pick + 1) % toy.vocab->size();
            expect(mask->allows(pick) && matcher.allows(pick), "mask and matcher disagree", text);
            expect(matcher.accept(pick), "an allowed token is refused", text);
            ++counts.steps;
            if (matcher.finished()) break;
            --left;
            if (random.below(6) == 0) matcher.rollback(1), ++left;
            // The toy's tokenizer takes cubic time.
            if (random.below(8) == 0 && matcher.forced_bytes().size() < 120) {
                const auto forced =
                    matcher.forced_tokens([&toy](std::string_view t) { return toy.tokenize(t); }, random.below(2));
                Matcher next = matcher;
                next.rollback(forced.replace);
                for (const std::uint32_t token : forced.tokens)
                    expect(next.accept(token), "a forced token is refused", text);
            }
        }
    } catch (const ltm::Error&) {
        ++counts.stopped;
    }
}

}  // namespace

int main(int argc, char** argv) {
    const std::size_t inputs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 800;
    random_gbnf::Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
    const toy::ToyVocab toy;
    const std::string blob = toy.vocab->serialise();
    const long before = peak_mb();
    Counts counts;
    for (; counts.inputs < inputs; ++counts.inputs) {
        std::string text;
        switch (random.below(4)) {
            case 0:
                text = random_gbnf::Writer(random, random.below(4) == 0, 40, 1 + static_cast<int>(random.below(3)))
                           .grammar();
                break;
            case 1:
                text = mutate(random_gbnf::Writer(random, random.below(4) == 0, 2000, 2).grammar(), random);
                break;
            case 2:
                text = mutate(kSeeds[random.below(std::size(kSeeds))], random);
                break;
            default:
                for (std::uint32_t i = random.below(30); i > 0; --i) text += kTokens[random.below(std::size(kTokens))];
                text = "root ::= " + text;
        }
        if (random.below(16) == 0) {
            for (std::uint32_t i = random.below(60); i > 0; --i) text.push_back(static_cast<char>(random.below(256)));
        }
        const std::clock_t from = std::clock();  // of this process: other work on the machine doesn't count
        use(text, toy, random, counts);
        const double ms = 1000.0 * static_cast<double>(std::clock() - from) / CLOCKS_PER_SEC;
        counts.slowest_ms = std::max(counts.slowest_ms, ms);
        if (ms > kMostMs) {
            ++counts.slow;
            std::printf("slow: %.0f ms, input %zu:\n%s\n", ms, counts.inputs, text.c_str());
        }
        if (random.below(64) == 0) {
            std::string damaged = blob;
            for (int i = 0; i < 3; ++i)
                damaged[random.below(static_cast<std::uint32_t>(damaged.size()))] ^=
                    static_cast<char>(1U << random.below(8));
            try {
                (void)Vocab::deserialise(random.below(2) == 0
                                             ? damaged
                                             : blob.substr(0, random.below(static_cast<std::uint32_t>(blob.size()))));
            } catch (const ltm::Error&) {
            }
        }
    }
    const long grown = peak_mb() - before;
    std::printf("%zu inputs: %zu compiled, %zu refused, %zu past a limit, %zu tokens; slowest %.0f ms; grew %ld MB\n",
                counts.inputs, counts.compiled, counts.refused, counts.stopped, counts.steps, counts.slowest_ms, grown);
    return counts.slow == 0 && grown < kMostMb ? 0 : 2;
}
