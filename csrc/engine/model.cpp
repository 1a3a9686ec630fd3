#include "engine/model.h"

#include <ggml-backend.h>

#include <algorithm>
#include <limits>

#include "engine/backend.h"
#include "support/error.h"

namespace ltm {
namespace {

struct ProgressState {
    const Progress* progress;
    bool stopped = false;
};

bool on_progress(float fraction, void* data) {
    auto* state = static_cast<ProgressState*>(data);
    if ((*state->progress)(fraction)) return true;
    state->stopped = true;
    return false;
}

// llama.cpp takes a NULL-terminated list of device handles.
std::vector<ggml_backend_dev_t> find_devices(const std::vector<std::string>& names) {
    std::vector<ggml_backend_dev_t> found;
    for (const std::string& name : names) {
        ggml_backend_dev_t dev = ggml_backend_dev_by_name(name.c_str());
        if (dev == nullptr) {
            std::string known;
            for (const Device& device : list_devices()) known += (known.empty() ? "" : ", ") + device.name;
            throw Error(ErrorCode::invalid_argument, "device: no '" + name + "' here; available: " + known);
        }
        found.push_back(dev);
    }
    if (!found.empty()) found.push_back(nullptr);
    return found;
}

// llama.cpp's text getters return the needed length; call again with room when the first buffer was too small.
template <typename Getter>
std::string read_text(const Getter& get) {
    std::string buffer(256, '\0');
    int length = get(buffer.data(), buffer.size());
    if (length < 0) return {};
    if (static_cast<std::size_t>(length) >= buffer.size()) {
        buffer.resize(static_cast<std::size_t>(length) + 1);
        length = get(buffer.data(), buffer.size());
        if (length < 0) return {};
    }
    buffer.resize(static_cast<std::size_t>(length));
    return buffer;
}

int checked_size(std::size_t size, const char* what) {
    if (size > static_cast<std::size_t>(std::numeric_limits<int32_t>::max())) {
        throw Error(ErrorCode::invalid_argument, std::string(what) + ": larger than 2 GiB");
    }
    return static_cast<int>(size);
}

}  // namespace

Model::Model(llama_model* model, ModelOptions options)
    : model_(model), vocab_(llama_model_get_vocab(model)), options_(std::move(options)) {}

std::shared_ptr<Model> Model::load(const ModelOptions& options, const Progress& progress) {
    ensure_backend();
    llama_model_params params = llama_model_default_params();
    std::vector<ggml_backend_dev_t> devices = find_devices(options.devices);
    ProgressState state{&progress};
    params.devices = devices.empty() ? nullptr : devices.data();
    params.n_gpu_layers = options.n_gpu_layers < 0 ? std::numeric_limits<int32_t>::max() : options.n_gpu_layers;
    params.load_mode = options.use_mmap ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
    params.vocab_only = options.vocab_only;
    if (progress) {
        params.progress_callback = on_progress;
        params.progress_callback_user_data = &state;
    }
    const LogScope scope;
    clear_last_error();
    llama_model* model = nullptr;
    try {
        model = llama_model_load_from_file(options.path.c_str(), params);
    } catch (const std::exception& error) {
        throw Error(ErrorCode::model, options.path + ": llama.cpp can't load it: " + error.what());
    }
    if (model == nullptr) {
        if (state.stopped) throw Error(ErrorCode::cancelled, options.path + ": loading was cancelled");
        const std::string reason = last_error();
        throw Error(ErrorCode::model,
                    options.path + ": llama.cpp can't load it: " + (reason.empty() ? "no reason given" : reason));
    }
    return std::shared_ptr<Model>(new Model(model, options));
}

std::string Model::apply_builtin_template(const std::string& chat_template, const Messages& messages) const {
    std::vector<llama_chat_message> chat;
    std::size_t room = 256;
    for (const auto& [role, content] : messages) {
        chat.push_back({role.c_str(), content.c_str()});
        room += role.size() + content.size() + 64;
    }
    std::string out(room, '\0');
    int length = llama_chat_apply_template(chat_template.c_str(), chat.data(), chat.size(), true, out.data(),
                                           checked_size(out.size(), "chat"));
    if (length > static_cast<int>(out.size())) {
        out.resize(static_cast<std::size_t>(length));
        length = llama_chat_apply_template(chat_template.c_str(), chat.data(), chat.size(), true, out.data(), length);
    }
    if (length < 0) return {};
    out.resize(static_cast<std::size_t>(length));
    return out;
}

std::vector<llama_token> Model::tokenize(std::string_view text, bool add_special, bool parse_special) const {
    const int size = checked_size(text.size(), "text");
    std::vector<llama_token> tokens(text.size() + 8);
    int count = llama_tokenize(vocab_, text.data(), size, tokens.data(), static_cast<int>(tokens.size()), add_special,
                               parse_special);
    if (count == std::numeric_limits<int32_t>::min()) {
        throw Error(ErrorCode::invalid_argument, "text: too long to tokenise");
    }
    if (count < 0) {
        tokens.resize(static_cast<std::size_t>(-count));
        count = llama_tokenize(vocab_, text.data(), size, tokens.data(), -count, add_special, parse_special);
        if (count < 0) throw Error(ErrorCode::engine, "llama.cpp failed to tokenise the text");
    }
    tokens.resize(static_cast<std::size_t>(count));
    return tokens;
}

std::vector<llama_token> Model::tokenize_inner(std::string_view text) const {
    if (llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_SPM) return tokenize(text, false, false);
    const std::vector<llama_token> lead = tokenize("\n", false, false);
    std::string seamed(1, '\n');
    seamed.append(text);
    std::vector<llama_token> tokens = tokenize(seamed, false, false);
    // A token that runs over the seam (a run of line breaks) can't be taken apart: the caller sees that it doesn't
    // spell the text.
    const bool apart = tokens.size() >= lead.size() && std::equal(lead.begin(), lead.end(), tokens.begin());
    if (apart) tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(lead.size()));
    return tokens;
}

std::shared_ptr<const grammar::Vocab> Model::grammar_vocab() const {
    std::call_once(vocab_once_, [this] {
        constexpr int kExcluded = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN | LLAMA_TOKEN_ATTR_UNUSED;
        std::vector<std::string> pieces(static_cast<std::size_t>(n_vocab()));
        std::vector<std::string_view> views;
        std::vector<grammar::TokenKind> kinds;
        views.reserve(pieces.size());
        kinds.reserve(pieces.size());
        for (llama_token token = 0; token < n_vocab(); ++token) {
            std::string& bytes = pieces[static_cast<std::size_t>(token)];
            bytes = piece(token, true);
            const bool ends = llama_vocab_is_eog(vocab_, token);
            const bool excluded =
                (llama_vocab_get_attr(vocab_, token) & kExcluded) != 0 || grammar::looks_like_control(bytes);
            views.emplace_back(bytes);
            kinds.push_back(ends       ? grammar::TokenKind::end
                            : excluded ? grammar::TokenKind::excluded
                                       : grammar::TokenKind::text);
        }
        grammar_vocab_ = std::make_shared<const grammar::Vocab>(views, kinds);
    });
    return grammar_vocab_;
}

void Model::use_grammar_vocab(std::shared_ptr<const grammar::Vocab> vocab) const {
    if (vocab == nullptr || vocab->size() != static_cast<std::uint32_t>(n_vocab())) {
        throw Error(ErrorCode::invalid_argument, "vocabulary: it has " +
                                                     std::to_string(vocab == nullptr ? 0 : vocab->size()) +
                                                     " tokens, the model " + std::to_string(n_vocab()));
    }
    std::call_once(vocab_once_, [&] { grammar_vocab_ = std::move(vocab); });
}

std::string Model::detokenize(const std::vector<llama_token>& tokens, bool special) const {
    std::string text;
    for (const llama_token token : tokens) text += piece(token, special);
    return text;
}

std::string Model::piece(llama_token token, bool special) const {
    if (token < 0 || token >= n_vocab()) {
        throw Error(ErrorCode::invalid_argument,
                    "token " + std::to_string(token) + ": the vocabulary has 0 to " + std::to_string(n_vocab() - 1));
    }
    std::string bytes(64, '\0');
    int length = llama_token_to_piece(vocab_, token, bytes.data(), static_cast<int>(bytes.size()), 0, special);
    if (length < 0) {
        bytes.resize(static_cast<std::size_t>(-length));
        length = llama_token_to_piece(vocab_, token, bytes.data(), -length, 0, special);
    }
    bytes.resize(static_cast<std::size_t>(length < 0 ? 0 : length));
    return bytes;
}

std::vector<std::pair<llama_token, std::string>> Model::special_tokens() const {
    constexpr int kSpecial = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED | LLAMA_TOKEN_ATTR_UNKNOWN;
    std::vector<std::pair<llama_token, std::string>> out;
    for (llama_token token = 0; token < n_vocab(); ++token) {
        if ((llama_vocab_get_attr(vocab_, token) & kSpecial) != 0) out.emplace_back(token, piece(token, true));
    }
    return out;
}

std::vector<std::pair<std::string, std::string>> Model::metadata() const {
    std::vector<std::pair<std::string, std::string>> out;
    const llama_model* model = model_.get();
    for (int32_t i = 0; i < llama_model_meta_count(model); ++i) {
        out.emplace_back(
            read_text([&](char* b, std::size_t n) { return llama_model_meta_key_by_index(model, i, b, n); }),
            read_text([&](char* b, std::size_t n) { return llama_model_meta_val_str_by_index(model, i, b, n); }));
    }
    return out;
}

std::string Model::description() const {
    return read_text([&](char* b, std::size_t n) { return llama_model_desc(model_.get(), b, n); });
}

std::string Model::chat_template() const {
    const char* text = llama_model_chat_template(model_.get(), nullptr);
    return text == nullptr ? std::string() : std::string(text);
}

}  // namespace ltm
