#include "grammar/matcher.h"

#include "support/error.h"

namespace ltm::grammar {

Matcher::Matcher(std::shared_ptr<MaskCache> cache) : cache_(std::move(cache)) { states_.push_back(cache_->start()); }

MaskPtr Matcher::mask() const {
    if (finished_) {
        auto none = std::make_shared<Mask>();
        none->words.assign(cache_->vocab().words(), 0);
        return none;
    }
    return cache_->mask(state());
}

MaskPtr Matcher::mask(std::uint32_t budget) const { return finished_ ? mask() : cache_->mask(state(), budget); }

bool Matcher::allows(std::uint32_t token) const {
    if (finished_ || token >= cache_->vocab().size()) return false;
    if (cache_->vocab().kind(token) == TokenKind::end) return is_complete();
    State next = state();
    return cache_->advance(next, token);
}

bool Matcher::accept(std::uint32_t token) {
    if (finished_ || token >= cache_->vocab().size()) return false;
    State next = state();
    if (cache_->vocab().kind(token) == TokenKind::end) {
        if (!cache_->complete(next)) return false;
        finished_ = true;
    } else if (!cache_->advance(next, token)) {
        return false;
    }
    states_.push_back(next);
    tokens_.push_back(token);
    return true;
}

void Matcher::rollback(std::size_t n) {
    if (n > tokens_.size()) {
        throw Error(ErrorCode::invalid_argument, "matcher: asked to take back " + std::to_string(n) + " tokens of " +
                                                     std::to_string(tokens_.size()));
    }
    if (n > 0) finished_ = false;
    tokens_.resize(tokens_.size() - n);
    states_.resize(states_.size() - n);
}

void Matcher::reset() { rollback(tokens_.size()); }

std::size_t Matcher::validate(std::span<const std::uint32_t> tokens) const {
    if (finished_) return 0;
    State at = state();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] >= cache_->vocab().size()) return i;
        if (cache_->vocab().kind(tokens[i]) == TokenKind::end) return cache_->complete(at) ? i + 1 : i;
        if (!cache_->advance(at, tokens[i], i == 0 ? Work::fresh : Work::continued)) return i;
    }
    return tokens.size();
}

std::string Matcher::forced_bytes() const {
    if (finished_) return {};
    State at = state();
    return cache_->forced(at, cache_->grammar().limits().forced_bytes);
}

}  // namespace ltm::grammar
