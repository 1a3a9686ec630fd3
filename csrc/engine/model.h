// A loaded GGUF model and its vocabulary.
#pragma once

#include <llama.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/vocab.h"

namespace ltm {

struct ModelOptions {
    std::string path;                  // UTF-8
    int n_gpu_layers = 0;              // layers offloaded, the output layer counted; negative: all
    std::vector<std::string> devices;  // names to offload to; empty: llama.cpp's choice
    bool use_mmap = true;
    bool vocab_only = false;  // vocabulary and metadata, no weights
};

// Called with 0…1 while weights are read; false stops loading.
using Progress = std::function<bool(float)>;

class Model {
  public:
    // Throws Error(model) with llama.cpp's reason, Error(cancelled) if progress asked to stop.
    static std::shared_ptr<Model> load(const ModelOptions& options, const Progress& progress = {});

    // A message list rendered by llama.cpp's built-in templates; empty if it knows none for `chat_template`.
    using Messages = std::vector<std::pair<std::string, std::string>>;
    [[nodiscard]] std::string apply_builtin_template(const std::string& chat_template, const Messages& messages) const;

    [[nodiscard]] std::vector<llama_token> tokenize(std::string_view text, bool add_special, bool parse_special) const;
    // Tokens of `text` as it stands in the middle of a longer one: nothing is put in front and control tokens are not
    // read. SentencePiece tokenizers put a blank before a text; they are given a line break to do that to, which is
    // taken off again.
    [[nodiscard]] std::vector<llama_token> tokenize_inner(std::string_view text) const;
    [[nodiscard]] std::string detokenize(const std::vector<llama_token>& tokens, bool special) const;
    // The vocabulary as the grammar engine sees it; built on first use, thread-safe.
    [[nodiscard]] std::shared_ptr<const grammar::Vocab> grammar_vocab() const;
    // Takes one that was built before, if none is in use yet. Throws Error(invalid_argument) if it has another size.
    void use_grammar_vocab(std::shared_ptr<const grammar::Vocab> vocab) const;
    // Bytes of one token; control tokens are empty unless `special`. Throws Error(invalid_argument) out of range.
    [[nodiscard]] std::string piece(llama_token token, bool special) const;

    // Tokens that are never plain text (control, user-defined, unknown), spelled out.
    [[nodiscard]] std::vector<std::pair<llama_token, std::string>> special_tokens() const;

    [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata() const;
    [[nodiscard]] std::string description() const;
    [[nodiscard]] std::string chat_template() const;  // empty if the file has none

    [[nodiscard]] const llama_vocab* vocab() const noexcept { return vocab_; }
    [[nodiscard]] llama_model* handle() const noexcept { return model_.get(); }
    [[nodiscard]] int n_vocab() const noexcept { return llama_vocab_n_tokens(vocab_); }
    [[nodiscard]] const ModelOptions& options() const noexcept { return options_; }

  private:
    Model(llama_model* model, ModelOptions options);

    struct Free {
        void operator()(llama_model* model) const noexcept { llama_model_free(model); }
    };
    std::unique_ptr<llama_model, Free> model_;
    const llama_vocab* vocab_;
    ModelOptions options_;
    mutable std::once_flag vocab_once_;
    mutable std::shared_ptr<const grammar::Vocab> grammar_vocab_;
};

}  // namespace ltm
