#include "store/inherit.h"

#include <cstring>

#include "io/text.h"

namespace linnet {
namespace {

// Rows first .. first + rows of the teacher's tensor, which go to rows `to` of the student's.
struct Piece {
  std::string source;
  int64_t first = 0, rows = 0, to = 0;
};

struct Place {
  std::string block;  // "blocks.3.attn."
  std::string rest;   // "kv.weight"
};

// Where in an attention a tensor lies; rest is empty if it lies in none.
Place place_of(const std::string& name) {
  const std::string_view inside = ".attn.";
  const size_t at = name.find(inside);
  if (at == std::string::npos) return {};
  return {name.substr(0, at + inside.size()), name.substr(at + inside.size())};
}

// q, k, v as the teacher keeps them: three parts of one tensor, or q apart and two parts.
Piece projection(const Weights& teacher, const Place& place, int part, int64_t width, const std::string& kind) {
  const std::string joined = place.block + "qkv." + kind;
  if (teacher.contains(joined)) return {joined, part * width, width, 0};
  if (part == 0) return {place.block + "q." + kind, 0, width, 0};
  return {place.block + "kv." + kind, (part - 1) * width, width, 0};
}

// What an attention's tensor takes over; empty: nothing. Norms and compressions, which a teacher of the same
// attention has too, go with the projections that were learned beside them.
std::vector<Piece> attention_pieces(const Weights& teacher, const Place& place, const Shape& shape,
                                    AlsoInherit also, int64_t width) {
  const size_t dot = place.rest.find('.');
  const std::string layer = place.rest.substr(0, dot), kind = place.rest.substr(dot + 1);
  std::vector<Piece> pieces;
  const auto take = [&](bool wanted, int part, int64_t to) {
    if (!wanted) return;
    pieces.push_back(projection(teacher, place, part, width, kind));
    pieces.back().to = to;
  };
  if (layer == "proj" && also.o) pieces.push_back({place.block + place.rest, 0, width, 0});
  const std::string same = place.block + place.rest;
  const bool beside = (layer == "q_norm" && also.q) || (layer == "k_norm" && also.k) ||
                      ((layer == "sr" || layer == "norm") && also.k && also.v);
  if (beside && teacher.contains(same) && teacher.shape(same) == shape)
    pieces.push_back({same, 0, shape[0], 0});
  if (layer == "q") take(also.q, 0, 0);
  if (layer == "kv") {
    take(also.k, 1, 0);
    take(also.v, 2, width);
  }
  if (layer == "qkv") {
    take(also.q, 0, 0);
    take(also.k, 1, width);
    take(also.v, 2, 2 * width);
  }
  return pieces;
}

void copy_rows(const Weights& teacher, const Piece& piece, const std::string& name, Tensor& value) {
  const Tensor source = teacher.tensor(piece.source).to(DType::f32);
  const int64_t row = value.numel() / value.size(0);
  const bool fits = source.shape().rank() == value.shape().rank() && source.numel() == source.size(0) * row &&
                    piece.first + piece.rows <= source.size(0) && piece.to + piece.rows <= value.size(0);
  check(fits, "{}: tensor '{}' has shape {}, which does not fit the student's '{}' of shape {}",
        teacher.source(), printable(piece.source), to_string(source.shape()), name, to_string(value.shape()));
  std::memcpy(value.mutable_data<float>() + piece.to * row, source.data<float>() + piece.first * row,
              static_cast<size_t>(piece.rows * row) * sizeof(float));
}

std::string describe(const Piece& piece, const Tensor& value) {
  if (piece.rows == value.size(0)) return piece.source;
  return fmt::format("{}, rows {} to {}", piece.source, piece.first, piece.first + piece.rows - 1);
}

}  // namespace

AlsoInherit also_inherit_from_name(std::string_view name) {
  AlsoInherit also;
  for (const char letter : name) {
    bool* const flag = letter == 'q'   ? &also.q
                       : letter == 'k' ? &also.k
                       : letter == 'v' ? &also.v
                       : letter == 'o' ? &also.o
                                       : nullptr;
    if (!flag || *flag)
      throw UsageError(
          fmt::format("\"{}\" names no projections: write qkv, kv, v, q, o or another choice of these letters",
                      printable(name)));
    *flag = true;
  }
  return also;
}

namespace {

template <class Config>
Config with_attention(Config config, nn::Mixer mixer, int64_t heads) {
  config.mixer = mixer;
  config.num_heads = heads;
  config.validate();
  return config;
}

template <class Model>
std::vector<Inherited> inherit_all(Model& student, const Weights& weights, AlsoInherit also, uint64_t seed) {
  const Weights teacher = with_float_matrices(weights);
  const int64_t width = student.config().hidden_size;
  const std::string beyond = fmt::format("blocks.{}.attn.proj.weight", student.config().depth);
  check(!teacher.contains(beyond), "{}: it has more blocks than the student's {}", teacher.source(),
        student.config().depth);
  nn::initialize(student, seed);
  std::vector<Inherited> report;
  for (auto& [name, parameter] : nn::learned_parameters(student)) {
    const Place place = place_of(name);
    const std::vector<Piece> pieces = place.rest.empty()
                                          ? std::vector<Piece>{{name, 0, parameter->shape[0], 0}}
                                          : attention_pieces(teacher, place, parameter->shape, also, width);
    Inherited row{name, ""};
    int64_t copied = 0;
    for (const Piece& piece : pieces) {
      if (place.rest.empty())
        check(teacher.shape(piece.source) == parameter->shape, "{}: tensor '{}' has shape {}, the student's {}",
              teacher.source(), printable(name), to_string(teacher.shape(name)), to_string(parameter->shape));
      copy_rows(teacher, piece, name, parameter->value);
      row.source += (row.source.empty() ? "" : "; ") + describe(piece, parameter->value);
      copied += piece.rows;
    }
    if (!row.source.empty() && copied < parameter->shape[0]) row.source += "; the rest fresh";
    report.push_back(std::move(row));
  }
  return report;
}

}  // namespace

DiTConfig student_of(const DiTConfig& teacher, nn::Mixer mixer, int64_t heads) {
  return with_attention(teacher, mixer, heads);
}
PixArtConfig student_of(const PixArtConfig& teacher, nn::Mixer mixer, int64_t heads) {
  PixArtConfig config = teacher;
  if (mixer != nn::Mixer::softmax) {
    config.qk_norm = false;
    config.kv_compression.clear();
  }
  return with_attention(config, mixer, heads);
}

std::vector<Inherited> inherit(DiT& student, const Weights& teacher, AlsoInherit also, uint64_t seed) {
  return inherit_all(student, teacher, also, seed);
}
std::vector<Inherited> inherit(PixArt& student, const Weights& teacher, AlsoInherit also, uint64_t seed) {
  return inherit_all(student, teacher, also, seed);
}

}  // namespace linnet
