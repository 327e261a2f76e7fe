#include "pipeline/text_encoding.h"

#include <algorithm>
#include <string_view>

#include "core/random.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "ops/reduce.h"

namespace linnet {
namespace {

namespace fs = std::filesystem;

std::string stripped(std::string_view text) {
  const auto blanks = {" ", "\t", "\n", "\v", "\f", "\r", "\u0085"};
  const auto begins = [&](std::string_view blank) { return text.starts_with(blank); };
  const auto ends = [&](std::string_view blank) { return text.ends_with(blank); };
  for (auto it = blanks.begin(); (it = std::ranges::find_if(blanks, begins)) != blanks.end();)
    text.remove_prefix(std::string_view(*it).size());
  for (auto it = blanks.begin(); (it = std::ranges::find_if(blanks, ends)) != blanks.end();)
    text.remove_suffix(std::string_view(*it).size());
  return std::string(text);
}

}  // namespace

Cleaning cleaning_from_name(std::string_view name) {
  if (name == "lower") return Cleaning::lower;
  if (name == "strip") return Cleaning::strip;
  throw UsageError(fmt::format("--cleaning is lower or strip, not \"{}\"", printable(name)));
}

std::string clean(const std::string& prompt, Cleaning cleaning) {
  const std::string fault = fault_of_text(prompt);
  check(fault.empty(), "the prompt \"{}\" {}", printable(prompt, 60), fault);
  return stripped(cleaning == Cleaning::lower ? lower_case(prompt) : prompt);
}

TokenizedTexts tokenize(const Tokenizer& tokenizer, const std::vector<std::string>& prompts, int64_t limit,
                        Cleaning cleaning) {
  TokenizedTexts result;
  for (const std::string& prompt : prompts) {
    const std::string fault = fault_of_text(prompt);
    check(fault.empty(), "text {} of {}, \"{}\", {}", result.ids.size() + 1, prompts.size(),
          printable(prompt, 60), fault);
    Tokenizer::Ids ids = tokenizer.ids(clean(prompt, cleaning), limit);
    result.ids.push_back(std::move(ids.values));
    result.cut.push_back(ids.cut);
  }
  return result;
}

TextStates encode_texts(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                        const std::function<void()>& on_block) {
  std::vector<int64_t> all;
  ops::Offsets offsets{0};
  for (const auto& text : ids) {
    all.insert(all.end(), text.begin(), text.end());
    offsets.push_back(static_cast<int64_t>(all.size()));
  }
  for (const int64_t id : all)
    check(id >= 0 && id < encoder.config().vocabulary,
          "the tokenizer gives piece {}, and the text encoder knows {} pieces: they do not belong together", id,
          encoder.config().vocabulary);
  return {encoder.forward(Tensor::from(all), offsets, on_block), offsets};
}

size_t texts_at_once(const std::vector<std::vector<int64_t>>& ids, size_t first) {
  size_t count = 0;
  for (size_t tokens = 0; first + count < ids.size(); ++count) {
    tokens += ids[first + count].size();
    if (count > 0 && tokens > static_cast<size_t>(tokens_at_once)) break;
  }
  return count;
}

namespace {

// take(the states of some texts) until all have been encoded.
template <class Take>
void encode_some_at_once(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                         const std::function<void()>& on_block, Take take) {
  for (size_t first = 0, count; first < ids.size(); first += count) {
    count = texts_at_once(ids, first);
    const auto begin = ids.begin() + static_cast<ptrdiff_t>(first);
    take(encode_texts(encoder, {begin, begin + static_cast<ptrdiff_t>(count)}, on_block));
  }
}

}  // namespace

TextStates encode_in_parts(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids) {
  std::vector<Tensor> texts;
  encode_some_at_once(encoder, ids, {}, [&](const TextStates& part) {
    for (int64_t i = 0; i < part.count(); ++i) texts.push_back(part.of(i));
  });
  return join(texts);
}

std::vector<Tensor> encode_each(const T5Encoder& encoder, const std::vector<std::vector<int64_t>>& ids,
                                const std::function<void()>& on_block) {
  std::vector<Tensor> result;
  encode_some_at_once(encoder, ids, on_block, [&](TextStates part) {
    part.states = part.states.host();
    check(
        ops::all_finite(part.states),
        "the states of a text are not finite (NaN or infinite): the text encoder's weights may be damaged, or "
        "the type of its products too narrow, of which f32 is the widest");
    for (int64_t i = 0; i < part.count(); ++i) result.push_back(part.of(i));
  });
  return result;
}

TextCache::TextCache(fs::path folder, std::string encoder)
    : folder_(std::move(folder)), encoder_(std::move(encoder)) {
  if (!folder_.empty()) make_folder(folder_);
}

fs::path TextCache::path_of(const std::vector<int64_t>& ids) const {
  uint64_t hash = ids.size(), other = 1;
  for (const char c : encoder_) hash = mix(hash, static_cast<unsigned char>(c));
  for (const int64_t id : ids) {
    hash = mix(hash, static_cast<uint64_t>(id));
    other = mix(other + hash, static_cast<uint64_t>(id));
  }
  return folder_ / fmt::format("{:016x}{:016x}.safetensors", hash, other);
}

Tensor TextCache::find(const std::vector<int64_t>& ids, int64_t width) const {
  if (folder_.empty() || !is_there(path_of(ids))) return {};
  try {
    const auto file = SafetensorsFile::open(path_of(ids));
    const Tensor states = file.tensor("states");
    const bool fits = states.dtype() == DType::f32 &&
                      states.shape() == Shape{static_cast<int64_t>(ids.size()), width} &&
                      file.metadata().at("encoder") == encoder_ && ops::all_finite(states);
    return fits ? states : Tensor();
  } catch (const std::exception&) {
    return {};
  }
}

void TextCache::keep(const std::vector<int64_t>& ids, const Tensor& states) const {
  if (folder_.empty()) return;
  write_safetensors(path_of(ids), {{"states", states}}, {{"encoder", encoder_}});
}

}  // namespace linnet
