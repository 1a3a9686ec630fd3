#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "support/error.h"

namespace ltm {
namespace {

void require(bool holds, const char* message) {
    if (!holds) throw Error(ErrorCode::invalid_argument, std::string("sampling: ") + message);
}

void validate(const SamplingOptions& o) {
    require(std::isfinite(o.temperature) && o.temperature >= 0.0F, "temperature must be 0 or more");
    require(o.top_k >= 0, "top_k must be 0 (off) or more");
    require(o.top_p > 0.0F && o.top_p <= 1.0F, "top_p must be above 0 and at most 1 (off)");
    require(o.min_p >= 0.0F && o.min_p < 1.0F, "min_p must be 0 (off) or more and below 1");
    require(std::isfinite(o.repeat_penalty) && o.repeat_penalty > 0.0F, "repeat_penalty must be above 0 (1 is off)");
    require(std::isfinite(o.frequency_penalty), "frequency_penalty must be a finite number");
    require(std::isfinite(o.presence_penalty), "presence_penalty must be a finite number");
    require(o.repeat_last_n >= -1 && o.repeat_last_n <= (1 << 20), "repeat_last_n must be -1 (all) to 1048576");
    require(std::isfinite(o.dry_multiplier) && o.dry_multiplier >= 0.0F, "dry_multiplier must be 0 (off) or more");
    require(o.dry_multiplier == 0.0F || o.dry_base >= 1.0F, "dry_base must be 1 or more");
    require(o.dry_allowed_length >= 0, "dry_allowed_length must be 0 or more");
}

int window(int last_n, const Model& model) {
    return last_n < 0 ? std::max(llama_model_n_ctx_train(model.handle()), 1) : last_n;
}

}  // namespace

Sampler::Sampler(const Model& model, const SamplingOptions& o)
    : chain_(llama_sampler_chain_init(llama_sampler_chain_default_params())),
      penalties_(o.repeat_penalty, o.frequency_penalty, o.presence_penalty,
                 static_cast<std::size_t>(window(std::max(o.repeat_last_n, -1), model))),
      n_vocab_(model.n_vocab()) {
    validate(o);
    const auto add = [this](llama_sampler* step) {
        if (step == nullptr) throw Error(ErrorCode::engine, "llama.cpp refused a sampling step");
        llama_sampler_chain_add(chain_.get(), step);
    };
    // The order of llama.cpp's own default chain: penalties first, then truncation, then temperature.
    if (o.dry_multiplier > 0.0F) {
        std::vector<const char*> breakers;
        for (const std::string& text : o.dry_breakers) breakers.push_back(text.c_str());
        add(llama_sampler_init_dry(model.vocab(), o.dry_multiplier, o.dry_base, o.dry_allowed_length,
                                   window(o.dry_last_n, model), breakers.data(), breakers.size()));
    }
    if (o.temperature == 0.0F) {
        add(llama_sampler_init_greedy());
        return;
    }
    if (o.top_k > 0) add(llama_sampler_init_top_k(o.top_k));
    if (o.top_p < 1.0F) add(llama_sampler_init_top_p(o.top_p, 1));
    if (o.min_p > 0.0F) add(llama_sampler_init_min_p(o.min_p, 1));
    add(llama_sampler_init_temp(o.temperature));
    add(llama_sampler_init_dist(o.seed));
}

void Sampler::fill(const float* logits) {
    candidates_.resize(static_cast<std::size_t>(n_vocab_));
    for (int i = 0; i < n_vocab_; ++i) candidates_[static_cast<std::size_t>(i)] = {i, logits[i], 0.0F};
    array_ = {candidates_.data(), candidates_.size(), -1, false};
}

void Sampler::fill(const float* logits, const grammar::Mask& mask) {
    candidates_.resize(mask.count);
    llama_token_data* out = candidates_.data();
    const auto put = [&](std::uint32_t token) { *out++ = {static_cast<llama_token>(token), logits[token], 0.0F}; };
    if (!mask.few.empty()) {
        for (const std::uint32_t token : mask.few) put(token);
    } else {
        for (std::size_t word = 0; word < mask.words.size(); ++word) {
            const auto first = static_cast<std::uint32_t>(word * 32);
            std::uint32_t bits = mask.words[word];
            if (bits == ~0U) {  // most words of a text slot: no need to look for the bits
                for (std::uint32_t i = 0; i < 32; ++i) put(first + i);
                continue;
            }
            for (; bits != 0; bits &= bits - 1) put(first + static_cast<std::uint32_t>(std::countr_zero(bits)));
        }
    }
    array_ = {candidates_.data(), static_cast<std::size_t>(out - candidates_.data()), -1, false};
}

llama_token Sampler::pick() {
    llama_sampler_apply(chain_.get(), &array_);
    if (array_.selected < 0 || static_cast<std::size_t>(array_.selected) >= array_.size) {
        throw Error(ErrorCode::engine, "sampling: llama.cpp chose no token");
    }
    const llama_token_data& chosen = array_.data[array_.selected];
    return std::isinf(chosen.logit) && chosen.logit < 0.0F ? LLAMA_TOKEN_NULL : chosen.id;
}

llama_token Sampler::sample(float* logits, Constraint* constraint, int budget) {
    const grammar::MaskPtr mask = constraint != nullptr ? constraint->mask(budget) : nullptr;
    penalties_.apply(logits);
    if (mask) {
        fill(logits, *mask);
    } else {
        fill(logits);
        if (constraint != nullptr) {
            const llama_token first = pick();
            if (first != LLAMA_TOKEN_NULL && constraint->allows(first)) return first;
            ++resampled_;
            fill(logits);
            constraint->apply(&array_);
            // Refused candidates leave before the chain: its truncating steps must see only what may be chosen.
            const auto kept = std::remove_if(candidates_.begin(), candidates_.end(), [](const llama_token_data& c) {
                return std::isinf(c.logit) && c.logit < 0.0F;
            });
            array_ = {candidates_.data(), static_cast<std::size_t>(kept - candidates_.begin()), -1, false};
        }
    }
    if (array_.size == 0) {
        throw Error(ErrorCode::grammar, "grammar: no token of this vocabulary can continue the document");
    }
    const llama_token token = pick();
    if (token == LLAMA_TOKEN_NULL) throw Error(ErrorCode::engine, "sampling: every logit is -inf");
    return token;
}

void Sampler::accept(llama_token token) {
    penalties_.accept(token);
    llama_sampler_accept(chain_.get(), token);
}

}  // namespace ltm
