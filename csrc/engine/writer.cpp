// Writing: one or several answers in common batches.
#include <algorithm>
#include <chrono>
#include <optional>

#include "engine/constraint.h"
#include "engine/context.h"
#include "engine/copying.h"
#include "support/error.h"
#include "support/utf8.h"

namespace ltm {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::unique_ptr<Constraint> make_constraint(const Model& model, const GenerateOptions& options) {
    if (options.grammar) return make_matcher_constraint(model, options.grammar);
    if (!options.llama_grammar.empty()) return make_llama_constraint(model, options.llama_grammar, "root");
    return nullptr;
}

std::size_t common(const std::vector<llama_token>& a, const std::vector<llama_token>& b) {
    return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

// One answer on its way.
struct Answer {
    Answer(const Model& model, const Request& request)
        : prompt(request.prompt),
          options(request.options),
          constraint(make_constraint(model, request.options)),
          sampler(model, request.options.sampling),
          copying(request.options.references) {}

    const std::vector<llama_token>& prompt;
    const GenerateOptions& options;
    std::unique_ptr<Constraint> constraint;
    Sampler sampler;
    Copying copying;
    SequenceCache::Lease lease;
    Utf8Stream stream;
    Generation out;
    std::vector<llama_token> plan;      // the prompt and what the document must begin with
    std::size_t leader = SIZE_MAX;      // the answer whose prefill this one waits for
    std::size_t shared = 0;             // tokens of the plan that the leader computes
    std::vector<llama_token> pending;   // written, its KV not computed yet
    std::vector<llama_token> proposed;  // guessed to follow `pending`
    bool prefilling = true;
    bool done = false;

    [[nodiscard]] int remaining() const { return options.max_tokens - static_cast<int>(out.tokens.size()); }
};

}  // namespace

class Writer {
  public:
    Writer(Context& context, const std::vector<Request>& requests, const TextSink& sink)
        : context_(context), model_(*context.model_), sink_(sink) {
        answers_.reserve(requests.size());
        for (const Request& request : requests) answers_.emplace_back(model_, request);
    }

    // Sees to it that the document fits, and begins it. Throws Error(grammar).
    void prepare(std::size_t index);
    std::vector<Generation> run();

  private:
    void follow(Answer& answer);
    void step(std::vector<std::size_t>& in_batch);
    // Chooses what follows logits row `row`: the next tokens, already accepted. Empty if the answer has ended.
    std::vector<llama_token> choose(Answer& answer, std::size_t row);
    void advance(std::size_t index, std::size_t row, double batch_ms, bool alone);
    void write(std::size_t index, const llama_token* tokens, std::size_t count);
    void end(Answer& answer, Stop stop);

    Context& context_;
    const Model& model_;
    const TextSink& sink_;
    std::vector<Answer> answers_;
};

void Writer::prepare(std::size_t index) {
    Answer& answer = answers_[index];
    Generation& out = answer.out;
    const int max_tokens = answer.options.max_tokens;
    if (answer.constraint && answer.constraint->cost_to_end() > max_tokens) {
        throw Error(ErrorCode::grammar, "grammar: the shortest document takes up to " +
                                            std::to_string(answer.constraint->cost_to_end()) +
                                            " tokens, max_tokens is " + std::to_string(max_tokens));
    }
    out.n_prompt = static_cast<int>(answer.prompt.size());
    answer.plan = answer.prompt;
    if (answer.constraint && answer.options.force) {
        const Determined begin = answer.constraint->determine(0, answer.options.max_tokens);
        out.n_forced = static_cast<int>(begin.tokens.size());
        for (const llama_token token : begin.tokens) {
            answer.sampler.accept(token);
            answer.plan.push_back(token);
        }
    }
}

void Writer::end(Answer& answer, Stop stop) {
    answer.done = true;
    answer.out.stop = stop;
    answer.pending.clear();
    answer.proposed.clear();
}

void Writer::write(std::size_t index, const llama_token* tokens, std::size_t count) {
    Answer& answer = answers_[index];
    std::string bytes;
    for (std::size_t i = 0; i < count; ++i) bytes += model_.piece(tokens[i], true);
    answer.out.tokens.insert(answer.out.tokens.end(), tokens, tokens + count);
    answer.out.text += bytes;
    if (!sink_) return;
    const std::string ready = answer.stream.push(bytes);
    if (!ready.empty() && !sink_(index, ready)) end(answer, Stop::sink);
}

std::vector<llama_token> Writer::choose(Answer& answer, std::size_t row) {
    Constraint* constraint = answer.constraint.get();
    if (constraint != nullptr && constraint->closed()) {
        end(answer, Stop::eog);
        return {};
    }
    if (answer.remaining() == 0) {
        end(answer, constraint != nullptr && constraint->complete() ? Stop::eog : Stop::length);
        return {};
    }
    const auto start = Clock::now();
    const llama_token token = answer.sampler.sample(context_.logits(row), constraint, answer.remaining());
    std::vector<llama_token> next;
    if (llama_vocab_is_eog(model_.vocab(), token)) {
        end(answer, Stop::eog);
    } else {
        next.assign(1, token);
        if (constraint != nullptr) {
            constraint->accept(token);
            if (answer.options.force) {
                // The sampled token is not decoded yet, so recutting it with what must follow costs nothing.
                const Determined forced = constraint->determine(1, answer.remaining() - 1);
                next.resize(1 - forced.replace);
                next.insert(next.end(), forced.tokens.begin(), forced.tokens.end());
                answer.out.n_forced += static_cast<int>(next.size()) - 1;
            }
        }
        for (const llama_token taken : next) answer.sampler.accept(taken);
    }
    answer.out.ms_sample += ms_since(start);
    return next;
}

// `row` holds the logits of the last pending token; those of the proposal follow it.
void Writer::advance(std::size_t index, std::size_t row, double batch_ms, bool alone) {
    Answer& answer = answers_[index];
    const std::vector<llama_token> proposed = std::move(answer.proposed);
    answer.proposed.clear();
    answer.pending.clear();
    const std::size_t before = context_.cache_->length(answer.lease.seq()) - proposed.size();
    std::size_t agreed = 0;  // tokens of the proposal that the model wrote too
    while (!answer.done) {
        std::vector<llama_token> next = choose(answer, row + agreed);
        std::size_t same = 0;
        while (same < next.size() && agreed + same < proposed.size() && proposed[agreed + same] == next[same]) ++same;
        write(index, next.data(), next.size());
        agreed += same;
        // What was proposed is decoded already, and the logits of its last token say what follows.
        if (same == next.size()) continue;
        answer.pending.assign(next.begin() + static_cast<std::ptrdiff_t>(same), next.end());
        break;
    }
    if (!proposed.empty()) {
        answer.out.n_proposed += static_cast<int>(proposed.size());
        answer.out.n_copied += static_cast<int>(agreed);
        answer.copying.accepted(proposed.size(), agreed, alone ? batch_ms : 0);
        if (agreed < proposed.size()) {
            const std::size_t left = context_.cache_->truncate(answer.lease.seq(), before + agreed);
            if (left != before + agreed) throw Error(ErrorCode::engine, "decode: a proposal could not be taken back");
        }
    } else if (alone) {
        answer.copying.plain(batch_ms);
    }
    if (answer.done) return;
    // Where nothing follows, the KV of the last tokens is not needed now.
    if (answer.constraint && answer.constraint->closed()) {
        end(answer, Stop::eog);
        return;
    }
    if (answer.remaining() == 0) {
        end(answer, answer.constraint && answer.constraint->complete() ? Stop::eog : Stop::length);
        return;
    }
    if (answer.copying.active() && answer.remaining() > 1) {
        std::vector<llama_token> guess =
            answer.copying.propose(answer.out.tokens, static_cast<std::size_t>(answer.remaining() - 1));
        if (answer.constraint && !guess.empty()) guess.resize(answer.constraint->validate(guess));
        answer.proposed = std::move(guess);
    }
}

void Writer::follow(Answer& answer) {
    Answer& leader = answers_[answer.leader];
    const std::size_t ready = context_.cache_->length(leader.lease.seq());
    if (ready < answer.shared) return;
    const std::size_t own = context_.cache_->length(answer.lease.seq());
    if (answer.shared > own) {
        if (own > 0) context_.cache_->truncate(answer.lease.seq(), 0);
        context_.cache_->adopt(answer.lease.seq(), leader.lease.seq(), answer.shared);
    }
    answer.leader = SIZE_MAX;
    answer.out.n_shared = static_cast<int>(std::min(answer.shared, answer.prompt.size())) - answer.out.n_reused;
    answer.out.n_reused += std::max(answer.out.n_shared, 0);
}

void Writer::step(std::vector<std::size_t>& in_batch) {
    std::vector<Context::Piece> pieces;
    std::size_t room = static_cast<std::size_t>(context_.n_batch_);
    std::size_t outputs = static_cast<std::size_t>(context_.n_outputs_) - answers_.size();  // beyond one for each
    // Answers that are being written first, so that none waits for another one's prompt.
    for (std::size_t i = 0; i < answers_.size() && room > 0; ++i) {
        Answer& answer = answers_[i];
        if (answer.done || answer.prefilling) continue;
        const std::size_t count = std::min(answer.pending.size(), room);
        const bool whole = count == answer.pending.size();
        answer.proposed.resize(whole ? std::min({answer.proposed.size(), room - count, outputs}) : 0);
        answer.pending.insert(answer.pending.end(), answer.proposed.begin(), answer.proposed.end());
        const std::size_t size = count + answer.proposed.size();
        pieces.push_back({answer.lease.seq(), answer.pending.data(), size, whole ? count - 1 : size});
        in_batch.push_back(i);
        room -= size;
        outputs -= answer.proposed.size();
    }
    for (std::size_t i = 0; i < answers_.size(); ++i) {
        Answer& answer = answers_[i];
        if (answer.done || !answer.prefilling) continue;
        if (answer.leader != SIZE_MAX) follow(answer);
        if (answer.leader != SIZE_MAX || room == 0) continue;
        const std::size_t from = context_.cache_->length(answer.lease.seq());
        const std::size_t count = std::min(room, answer.plan.size() - from);
        const bool whole = from + count == answer.plan.size();
        pieces.push_back({answer.lease.seq(), answer.plan.data() + from, count, whole ? count - 1 : count});
        in_batch.push_back(i);
        room -= count;
    }
    const auto start = Clock::now();
    const bool decoded = context_.decode(pieces);
    const double ms = ms_since(start);
    double tokens = 0;
    for (const Context::Piece& piece : pieces) tokens += static_cast<double>(piece.count);
    for (std::size_t p = 0; p < pieces.size(); ++p) {
        Answer& answer = answers_[in_batch[p]];
        const double share = tokens > 0 ? ms * static_cast<double>(pieces[p].count) / tokens : 0;
        (answer.prefilling ? answer.out.ms_prefill : answer.out.ms_decode) += share;
    }
    if (!decoded) {
        for (Answer& answer : answers_) {
            if (!answer.done) end(answer, Stop::cancelled);
        }
        return;
    }
    const bool alone = pieces.size() == 1;
    for (std::size_t p = 0; p < pieces.size(); ++p) {
        const std::size_t i = in_batch[p];
        Answer& answer = answers_[i];
        if (answer.prefilling) {
            if (context_.cache_->length(answer.lease.seq()) < answer.plan.size()) continue;
            answer.prefilling = false;
            advance(i, pieces[p].row + pieces[p].count - 1, ms, false);
        } else if (pieces[p].logits_from < pieces[p].count) {
            advance(i, pieces[p].row + pieces[p].logits_from, ms, alone);
        } else {  // more than a batch was forced at once: the rest comes next
            const auto begin = answer.pending.begin();
            answer.pending.erase(begin, begin + static_cast<std::ptrdiff_t>(pieces[p].count));
        }
    }
}

std::vector<Generation> Writer::run() {
    SequenceCache& cache = *context_.cache_;
    for (std::size_t i = 0; i < answers_.size(); ++i) {
        Answer& answer = answers_[i];
        answer.lease = cache.branch(answer.plan, answer.plan.size() - 1, context_.base_, context_.applied_);
        answer.lease.keep();
        const std::size_t cached = cache.length(answer.lease.seq());
        answer.out.n_reused = static_cast<int>(std::min(cached, answer.prompt.size()));
        if (!context_.can_cut()) {
            answer.copying = Copying({});
            continue;
        }
        for (std::size_t j = 0; j < i; ++j) {
            const std::size_t shared = std::min(common(answers_[j].plan, answer.plan), answer.plan.size() - 1);
            if (shared > cached && shared > answer.shared) {
                answer.leader = j;
                answer.shared = shared;
            }
        }
    }
    // What a document must begin with is written before anything is computed.
    for (std::size_t i = 0; i < answers_.size(); ++i) {
        Answer& answer = answers_[i];
        const std::size_t begun = answer.plan.size() - answer.prompt.size();
        if (begun > 0) write(i, answer.plan.data() + answer.prompt.size(), begun);
    }
    const auto open = [this] {
        return std::any_of(answers_.begin(), answers_.end(), [](const Answer& a) { return !a.done; });
    };
    std::vector<std::size_t> in_batch;
    while (open()) {
        in_batch.clear();
        // A leader that ended early (its reader left) computes no more: its followers go on alone.
        for (Answer& answer : answers_) {
            if (answer.leader != SIZE_MAX && answers_[answer.leader].done) {
                answer.shared = std::min(answer.shared, cache.length(answers_[answer.leader].lease.seq()));
                follow(answer);
            }
        }
        step(in_batch);
    }
    std::vector<Generation> results;
    results.reserve(answers_.size());
    for (std::size_t i = 0; i < answers_.size(); ++i) {
        Answer& answer = answers_[i];
        Generation& out = answer.out;
        const auto computed = static_cast<int>(std::min(cache.length(answer.lease.seq()), answer.prompt.size()));
        out.n_prefilled = std::max(computed - out.n_reused, 0);
        out.n_shared = std::max(out.n_shared, 0);
        out.n_resampled = answer.sampler.resampled();
        if (sink_ && out.stop != Stop::sink) {
            const std::string rest = answer.stream.flush();
            if (!rest.empty()) sink_(i, rest);
        }
        results.push_back(std::move(out));
    }
    return results;
}

std::vector<Generation> Context::generate(const std::vector<Request>& requests, const AdapterState& adapters,
                                          const TextSink& sink, const StopPoll& poll) {
    const Pass pass(*this, &poll);
    if (requests.size() > static_cast<std::size_t>(n_seq_max_)) {
        throw Error(ErrorCode::invalid_argument, "generate: " + std::to_string(requests.size()) +
                                                     " requests at once, the context has " +
                                                     std::to_string(n_seq_max_) + " sequences");
    }
    std::vector<const std::vector<llama_token>*> prompts;
    std::size_t answers = 0;
    for (const Request& request : requests) {
        if (request.prompt.empty()) throw Error(ErrorCode::invalid_argument, "generate: the prompt is empty");
        if (request.options.max_tokens < 1) {
            throw Error(ErrorCode::invalid_argument, "generate: max_tokens must be 1 or more");
        }
        check_tokens(request.prompt, "generate");
        for (const auto& reference : request.options.references) check_tokens(reference, "generate: reference");
        prompts.push_back(&request.prompt);
        answers += static_cast<std::size_t>(request.options.max_tokens);
    }
    if (requests.empty()) return {};
    check_room(prompts, answers);
    Writer writer(*this, requests, sink);
    for (std::size_t i = 0; i < requests.size(); ++i) writer.prepare(i);
    apply(adapters);
    return writer.run();
}

}  // namespace ltm
