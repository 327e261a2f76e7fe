// What a text encoder that is trained along learns beside what pictures teach it: to say of each piece where in
// its text it stands. Pictures may not teach it to look at the order of words: as long as its states don't tell
// it, the transformer can't use it, and as long as that doesn't, no gradient asks for it. What it is worth:
// docs/training.md.
#pragma once

#include "models/pixart.h"

namespace linnet {

/// A fixed random direction (places, width) f32 of each place in a text, counted from its beginning. A place's
/// is the same however many there are.
Tensor directions_of_places(int64_t places, int64_t width);

/// How badly the states tell their pieces' places: cross entropy (1) f32, in nats, of the softmax of a piece's
/// states' products with the places' directions, averaged over all pieces. So there is nothing to learn but the
/// states, and nothing to keep of it afterwards. Throws Error on a text of more pieces than there are places.
Tensor word_order_loss(const TextStates& texts, const Tensor& directions);

}  // namespace linnet
