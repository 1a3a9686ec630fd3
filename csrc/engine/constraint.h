// What may be written next: the seam between the decoder and a grammar.
#pragma once

#include <llama.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model.h"
#include "grammar/matcher.h"

namespace ltm {

// Tokens that a grammar determines, in the tokenizer's own cut.
struct Determined {
    std::size_t replace = 0;          // the last accepted tokens that they stand in for
    std::vector<llama_token> tokens;  // already accepted
};

// A grammar's state along one decode. Calls may throw Error(grammar); none aborts the process.
class Constraint {
  public:
    virtual ~Constraint() = default;

    // Tokens that a document takes at least from here; 0 where that is not known.
    [[nodiscard]] virtual int cost_to_end() { return 0; }
    // Tokens allowed next such that the document can end within `budget` of them (this one counted), or null if only
    // the calls below answer.
    [[nodiscard]] virtual grammar::MaskPtr mask(int /*budget*/) { return nullptr; }
    // True if `token` may come next. Cheap: used to check a sampled token before anything else is computed.
    [[nodiscard]] virtual bool allows(llama_token token) = 0;
    // Sets the logits of all tokens that may not come next to -inf.
    virtual void apply(llama_token_data_array* candidates) = 0;
    // Takes a token that is allowed.
    virtual void accept(llama_token token) = 0;
    // Accepts and returns what needs no sampling, at most `budget` tokens; up to `may_replace` accepted ones may be
    // recut with it.
    [[nodiscard]] virtual Determined determine(std::size_t /*may_replace*/, int /*budget*/) { return {}; }
    // How many of `tokens`, in order, may follow; they are not taken. All of them where that is not known.
    [[nodiscard]] virtual std::size_t validate(const std::vector<llama_token>& tokens) { return tokens.size(); }
    // True if the document may end here.
    [[nodiscard]] virtual bool complete() { return false; }
    // True if the document is complete and nothing can follow: sampling an end token would tell nothing new.
    [[nodiscard]] virtual bool closed() { return false; }
};

// llama.cpp's own GBNF sampler: the oracle, and the fallback for what the engine in csrc/grammar refuses. Slow over a
// whole vocabulary (13–104 ms at 49k–262k tokens), so the sampler asks `allows` first. Throws Error(grammar) with
// llama.cpp's reason if the grammar does not parse.
[[nodiscard]] std::unique_ptr<Constraint> make_llama_constraint(const Model& model, const std::string& gbnf,
                                                                const std::string& root);

// The engine of csrc/grammar. `model` must outlive the constraint.
[[nodiscard]] std::unique_ptr<Constraint> make_matcher_constraint(const Model& model,
                                                                  std::shared_ptr<grammar::MaskCache> cache);

}  // namespace ltm
