// Inception-v3 (Szegedy et al. 2015) as the Fréchet Inception Distance uses it: the network of pytorch-fid,
// whose parameter names these are, with the weights that the original TensorFlow implementation of FID used. It
// differs from torchvision's in its poolings (means leave out what lies outside; the last block takes the
// largest), has 1008 classes, and knows no dropout. Always f32.
#pragma once

#include <memory>
#include <string>

#include "nn/parameter.h"

namespace linnet {

class Inception {
 public:
  /// What it sees in n pictures, all f32.
  struct Features {
    Tensor first, second, third;  ///< (n, 64), (n, 192), (n, 768): means over the pixels of earlier blocks
    Tensor pool;                  ///< (n, 2048): FID's
    Tensor spatial;               ///< (n, 2023): sFID's, 7 channels of 17 × 17 pixels of the sixth mixed block
  };

  Inception();
  Inception(Inception&&) noexcept;
  ~Inception();

  /// pictures (n, 3, height, width) f32 in −1..1, of any size; they are resized to 299 × 299 and shifted as the
  /// TensorFlow network of ADM's suite does, not as pytorch-fid.
  Features features(const Tensor& pictures) const;
  /// Of pool features: the classes' probabilities (n, 1008), without the last layer's bias, as ADM's suite has
  /// them.
  Tensor probabilities(const Tensor& pool) const;

  void visit(const std::string& prefix, const nn::ParameterVisitor& visitor);

 private:
  struct Network;

  std::unique_ptr<Network> network_;
};

}  // namespace linnet
