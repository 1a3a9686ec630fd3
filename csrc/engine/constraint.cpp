#include "engine/constraint.h"

#include <cmath>
#include <limits>

#include "engine/backend.h"
#include "support/error.h"

namespace ltm {
namespace {

class LlamaConstraint final : public Constraint {
  public:
    LlamaConstraint(llama_sampler* sampler, const Model& model) : sampler_(sampler), n_vocab_(model.n_vocab()) {}

    bool allows(llama_token token) override {
        llama_token_data one{token, 0.0F, 0.0F};
        llama_token_data_array array{&one, 1, -1, false};
        guarded([&] { llama_sampler_apply(sampler_.get(), &array); });
        return !std::isinf(one.logit);
    }

    void apply(llama_token_data_array* candidates) override {
        guarded([&] { llama_sampler_apply(sampler_.get(), candidates); });
    }

    void accept(llama_token token) override {
        if (token < 0 || token >= n_vocab_) {
            throw Error(ErrorCode::grammar, "grammar: token " + std::to_string(token) + " is not in the vocabulary");
        }
        // llama.cpp aborts the process on an illegal end-of-generation token and throws out of C on others, so the
        // question is asked before the token is handed over.
        if (!allows(token)) {
            throw Error(ErrorCode::grammar, "grammar: token " + std::to_string(token) + " is not allowed here");
        }
        guarded([&] { llama_sampler_accept(sampler_.get(), token); });
    }

  private:
    template <typename Call>
    static void guarded(const Call& call) {
        try {
            call();
        } catch (const std::exception& error) {
            throw Error(ErrorCode::grammar, std::string("grammar: llama.cpp stopped: ") + error.what());
        }
    }

    struct Free {
        void operator()(llama_sampler* sampler) const noexcept { llama_sampler_free(sampler); }
    };
    std::unique_ptr<llama_sampler, Free> sampler_;
    int n_vocab_;
};

class MatcherConstraint final : public Constraint {
  public:
    MatcherConstraint(const Model& model, std::shared_ptr<grammar::MaskCache> cache)
        : matcher_(std::move(cache)), tokenize_([&model](std::string_view text) {
              const std::vector<llama_token> tokens = model.tokenize_inner(text);
              return std::vector<std::uint32_t>(tokens.begin(), tokens.end());
          }) {}

    int cost_to_end() override { return static_cast<int>(matcher_.cost_to_end()); }

    grammar::MaskPtr mask(int budget) override { return matcher_.mask(static_cast<std::uint32_t>(budget)); }

    bool allows(llama_token token) override { return token >= 0 && matcher_.allows(static_cast<std::uint32_t>(token)); }

    void apply(llama_token_data_array* candidates) override {
        const grammar::MaskPtr allowed = matcher_.mask();
        for (std::size_t i = 0; i < candidates->size; ++i) {
            llama_token_data& candidate = candidates->data[i];
            if (!allowed->allows(static_cast<std::uint32_t>(candidate.id))) {
                candidate.logit = -std::numeric_limits<float>::infinity();
            }
        }
    }

    void accept(llama_token token) override {
        if (token < 0 || !matcher_.accept(static_cast<std::uint32_t>(token))) {
            throw Error(ErrorCode::grammar, "grammar: token " + std::to_string(token) + " is not allowed here");
        }
    }

    Determined determine(std::size_t may_replace, int budget) override {
        const grammar::ForcedTokens forced =
            matcher_.forced_tokens(tokenize_, may_replace, static_cast<std::uint32_t>(budget));
        if (forced.tokens.empty()) return {};
        matcher_.rollback(forced.replace);
        Determined out{forced.replace, {}};
        for (const std::uint32_t token : forced.tokens) {
            accept(static_cast<llama_token>(token));
            out.tokens.push_back(static_cast<llama_token>(token));
        }
        return out;
    }

    std::size_t validate(const std::vector<llama_token>& tokens) override {
        return matcher_.validate(std::vector<std::uint32_t>(tokens.begin(), tokens.end()));
    }

    bool complete() override { return matcher_.is_complete(); }
    bool closed() override { return matcher_.is_closed() && matcher_.is_complete(); }

  private:
    grammar::Matcher matcher_;
    grammar::Tokenize tokenize_;
};

}  // namespace

std::unique_ptr<Constraint> make_matcher_constraint(const Model& model, std::shared_ptr<grammar::MaskCache> cache) {
    return std::make_unique<MatcherConstraint>(model, std::move(cache));
}

std::unique_ptr<Constraint> make_llama_constraint(const Model& model, const std::string& gbnf,
                                                  const std::string& root) {
    if (gbnf.empty()) throw Error(ErrorCode::grammar, "grammar: the text is empty");
    if (gbnf.find('\0') != std::string::npos) throw Error(ErrorCode::grammar, "grammar: the text holds a NUL byte");
    const LogScope scope;
    clear_last_error();
    llama_sampler* sampler = nullptr;
    try {
        sampler = llama_sampler_init_grammar(model.vocab(), gbnf.c_str(), root.c_str());
    } catch (const std::exception& error) {
        throw Error(ErrorCode::grammar, std::string("grammar: llama.cpp refused it: ") + error.what());
    }
    if (sampler == nullptr) {
        const std::string reason = last_error();
        throw Error(ErrorCode::grammar,
                    "grammar: llama.cpp refused it: " + (reason.empty() ? "no reason given" : reason));
    }
    return std::make_unique<LlamaConstraint>(sampler, model);
}

}  // namespace ltm
