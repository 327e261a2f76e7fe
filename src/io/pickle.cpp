#include "io/pickle.h"

#include <bit>
#include <unordered_map>

#include "io/text.h"

namespace linnet {
namespace {

using Kind = PickleValue::Kind;

// clang-format off
enum Opcode : uint8_t {
  MARK = '(', STOP = '.', POP = '0', POP_MARK = '1', DUP = '2',
  NONE = 'N', NEWTRUE = 0x88, NEWFALSE = 0x89,
  BININT = 'J', BININT1 = 'K', BININT2 = 'M', LONG1 = 0x8a, LONG4 = 0x8b, BINFLOAT = 'G',
  BINSTRING = 'T', SHORT_BINSTRING = 'U', BINUNICODE = 'X', SHORT_BINUNICODE = 0x8c, BINUNICODE8 = 0x8d,
  BINBYTES = 'B', SHORT_BINBYTES = 'C', BINBYTES8 = 0x8e,
  EMPTY_LIST = ']', APPEND = 'a', APPENDS = 'e', LIST = 'l',
  EMPTY_TUPLE = ')', TUPLE = 't', TUPLE1 = 0x85, TUPLE2 = 0x86, TUPLE3 = 0x87,
  EMPTY_DICT = '}', DICT = 'd', SETITEM = 's', SETITEMS = 'u',
  EMPTY_SET = 0x8f, ADDITEMS = 0x90, FROZENSET = 0x91,
  BINPUT = 'q', LONG_BINPUT = 'r', MEMOIZE = 0x94, BINGET = 'h', LONG_BINGET = 'j',
  GLOBAL = 'c', STACK_GLOBAL = 0x93, REDUCE = 'R', NEWOBJ = 0x81, BUILD = 'b', BINPERSID = 'Q',
  PROTO = 0x80, FRAME = 0x95,
};
// clang-format on

// A value takes a hundred times the byte that makes it; checkpoints of the largest models have some ten
// thousand.
constexpr size_t most_values = 4'000'000;
// Two bytes that recall a value put it into a container again, and OrderedDict copies a whole list.
constexpr size_t most_items = 16'000'000;

// Module and name of an object together, which are copied every time.
constexpr size_t longest_object = 1024;

constexpr std::string_view ordered_dictionary = "collections.OrderedDict",
                           default_dictionary = "collections.defaultdict";

}  // namespace

class PickleMachine {
 public:
  PickleMachine(ByteReader& reader, const std::string& source)
      : reader_(reader), source_(source), values_(std::make_shared<std::deque<PickleValue>>()) {}

  Pickle run() {
    for (;;) {
      const auto opcode = reader_.number<uint8_t>();
      if (opcode == STOP) break;
      step(opcode);
    }
    Pickle result;
    result.root_ = pop();
    result.values_ = values_;
    return result;
  }

 private:
  // Of values, and of the places where they are kept, of which each may also hold one value over and over.
  void check_room(size_t count) const {
    check(count < most_values, "{}: the pickle in it has too many values", source_);
  }
  PickleValue* make(Kind kind) {
    check_room(values_->size());
    PickleValue& value = values_->emplace_back();
    value.kind = kind;
    return &value;
  }
  void push(PickleValue* value) {
    check_room(stack_.size());
    stack_.push_back(value);
  }
  PickleValue* push(Kind kind) {
    push(make(kind));
    return stack_.back();
  }
  void push_integer(int64_t value) { push(Kind::integer)->integer = value; }
  void push_text(Kind kind, uint64_t bytes) { push(kind)->text = reader_.text(bytes); }

  size_t bottom() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleValue* top() const {
    check(stack_.size() > bottom(), "{}: the pickle in it is damaged (its stack is empty)", source_);
    return stack_.back();
  }
  PickleValue* pop() {
    PickleValue* const value = top();
    stack_.pop_back();
    return value;
  }
  void count_items(size_t count) {
    items_ += count;
    check(items_ <= most_items, "{}: the containers of the pickle in it hold too many items", source_);
  }
  // All values since the last mark.
  std::vector<const PickleValue*> pop_to_mark() {
    check(!marks_.empty(), "{}: the pickle in it is damaged (a mark is missing)", source_);
    count_items(stack_.size() - marks_.back());
    const auto from = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<const PickleValue*> values(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return values;
  }

  void push_tuple(size_t count) {
    std::vector<const PickleValue*> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push(Kind::tuple)->items = std::move(items);
  }

  // Into a list, a set, or (by pairs) a dictionary that lies on top.
  void add(Kind kind, std::span<const PickleValue* const> items) {
    PickleValue* const target = top();
    check(target->is(kind), "{}: the pickle in it adds items to {}", source_, describe(*target));
    check(!target->is(Kind::dictionary) || items.size() % 2 == 0,
          "{}: the pickle in it has a key without a value", source_);
    target->items.insert(target->items.end(), items.begin(), items.end());
  }

  void mark() {
    check_room(marks_.size());
    marks_.push_back(stack_.size());
  }
  void remember(uint64_t index) {
    check_room(memo_.size());
    memo_[index] = top();
  }
  void recall(uint64_t index) {
    const auto found = memo_.find(index);
    check(found != memo_.end(), "{}: the pickle in it is damaged (it recalls what it never stored)", source_);
    push(found->second);
  }

  void push_long(uint64_t size) {
    const std::string_view digits = reader_.text(size);
    if (size > 8) {  // kept as its bytes
      push(Kind::bytes)->text = digits;
      return;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= uint64_t{static_cast<uint8_t>(digits[i])} << (8 * i);
    if (size > 0 && size < 8 && (digits.back() & 0x80)) value |= ~uint64_t{0} << (8 * size);
    push_integer(static_cast<int64_t>(value));
  }

  void push_global(std::string_view module, std::string_view name) {
    check(module.size() + name.size() <= longest_object,
          "{}: the pickle in it has an object of too long a name", source_);
    push(Kind::global)->name = std::string(module) + "." + std::string(name);
  }

  void call() {
    const PickleValue *const arguments = pop(), *const callable = pop();
    check(callable->is(Kind::global) && arguments->is(Kind::tuple), "{}: the pickle in it calls {}", source_,
          describe(*callable));
    // What it would make for a key that is missing, its argument, is never made; its items come later.
    if (callable->name == default_dictionary) {
      push(Kind::dictionary);
      return;
    }
    if (callable->name != ordered_dictionary) {
      push(Kind::call)->items = {callable, arguments};
      return;
    }
    PickleValue* const dictionary = push(Kind::dictionary);
    if (arguments->items.empty()) return;
    for (const PickleValue* pair : arguments->items[0]->items) {
      check(pair->items.size() == 2, "{}: the pickle in it has a damaged dictionary", source_);
      count_items(2);
      dictionary->items.insert(dictionary->items.end(), pair->items.begin(), pair->items.end());
    }
  }

  // An object's attributes. Those of a dictionary (PyTorch's "_metadata") say nothing of what is in it.
  void build() {
    const PickleValue* const state = pop();
    PickleValue* const target = top();
    if (target->is(Kind::call)) target->items.push_back(state);
  }

  double big_endian_real() {
    uint64_t bits = 0;
    for (const std::byte b : reader_.take(8)) bits = bits << 8 | static_cast<uint64_t>(b);
    return std::bit_cast<double>(bits);
  }

  void step(uint8_t opcode);

  ByteReader& reader_;
  const std::string& source_;
  std::shared_ptr<std::deque<PickleValue>> values_;
  std::vector<PickleValue*> stack_;
  std::vector<size_t> marks_;
  size_t items_ = 0;
  std::unordered_map<uint64_t, PickleValue*> memo_;
};

void PickleMachine::step(uint8_t opcode) {
  switch (opcode) {
    case PROTO: {
      const auto protocol = reader_.number<uint8_t>();
      check(protocol >= 2 && protocol <= 5, "{}: the pickle in it is of protocol {}; 2 to 5 are known", source_,
            protocol);
      return;
    }
    case FRAME: reader_.take(8); return;
    case MARK: return mark();
    case POP: pop(); return;
    case POP_MARK: pop_to_mark(); return;
    case DUP: push(top()); return;
    case NONE: push(Kind::none); return;
    case NEWTRUE: push(Kind::boolean)->integer = 1; return;
    case NEWFALSE: push(Kind::boolean); return;
    case BININT: return push_integer(reader_.number<int32_t>());
    case BININT1: return push_integer(reader_.number<uint8_t>());
    case BININT2: return push_integer(reader_.number<uint16_t>());
    case LONG1: return push_long(reader_.number<uint8_t>());
    case LONG4: return push_long(reader_.number<uint32_t>());
    case BINFLOAT: push(Kind::real)->real = big_endian_real(); return;
    case SHORT_BINSTRING:
    case SHORT_BINUNICODE: return push_text(Kind::text, reader_.number<uint8_t>());
    case BINSTRING:
    case BINUNICODE: return push_text(Kind::text, reader_.number<uint32_t>());
    case BINUNICODE8: return push_text(Kind::text, reader_.number<uint64_t>());
    case SHORT_BINBYTES: return push_text(Kind::bytes, reader_.number<uint8_t>());
    case BINBYTES: return push_text(Kind::bytes, reader_.number<uint32_t>());
    case BINBYTES8: return push_text(Kind::bytes, reader_.number<uint64_t>());
    case EMPTY_LIST: push(Kind::list); return;
    case EMPTY_TUPLE: push(Kind::tuple); return;
    case EMPTY_DICT: push(Kind::dictionary); return;
    case EMPTY_SET: push(Kind::set); return;
    case LIST: {
      auto items = pop_to_mark();
      push(Kind::list)->items = std::move(items);
      return;
    }
    case TUPLE: {
      auto items = pop_to_mark();
      push(Kind::tuple)->items = std::move(items);
      return;
    }
    case FROZENSET: {
      auto items = pop_to_mark();
      push(Kind::set)->items = std::move(items);
      return;
    }
    case DICT: {
      const auto items = pop_to_mark();
      push(Kind::dictionary);
      return add(Kind::dictionary, items);
    }
    case TUPLE1: return push_tuple(1);
    case TUPLE2: return push_tuple(2);
    case TUPLE3: return push_tuple(3);
    case APPEND: {
      const PickleValue* const item = pop();
      return add(Kind::list, {&item, 1});
    }
    case APPENDS: return add(Kind::list, pop_to_mark());
    case ADDITEMS: return add(Kind::set, pop_to_mark());
    case SETITEM: {
      const PickleValue* const value = pop();
      const PickleValue* const pair[] = {pop(), value};
      return add(Kind::dictionary, pair);
    }
    case SETITEMS: return add(Kind::dictionary, pop_to_mark());
    case BINPUT: return remember(reader_.number<uint8_t>());
    case LONG_BINPUT: return remember(reader_.number<uint32_t>());
    case MEMOIZE: return remember(memo_.size());
    case BINGET: return recall(reader_.number<uint8_t>());
    case LONG_BINGET: return recall(reader_.number<uint32_t>());
    case GLOBAL: {
      const std::string_view module = reader_.line();
      return push_global(module, reader_.line());
    }
    case STACK_GLOBAL: {
      const PickleValue *const name = pop(), *const module = pop();
      check(name->is(Kind::text) && module->is(Kind::text), "{}: the pickle in it names an object by {}",
            source_, describe(*name));
      return push_global(module->text, name->text);
    }
    case REDUCE:
    case NEWOBJ: return call();
    case BUILD: return build();
    case BINPERSID: {
      const PickleValue* const identifier = pop();
      push(Kind::persistent)->items = {identifier};
      return;
    }
    default:
      fail("{}: the pickle in it has the opcode 0x{:02x}, which PyTorch's files do not use", source_, opcode);
  }
}

Pickle Pickle::read(ByteReader& reader, const std::string& source) {
  return PickleMachine(reader, source).run();
}

const PickleValue* PickleValue::find(std::string_view key) const {
  if (kind != Kind::dictionary) return nullptr;
  for (size_t i = 0; i + 1 < items.size(); i += 2)
    if (items[i]->is(Kind::text) && items[i]->text == key) return items[i + 1];
  return nullptr;
}

std::string describe(const PickleValue& value) {
  switch (value.kind) {
    case Kind::none: return "None";
    case Kind::boolean: return value.integer ? "True" : "False";
    case Kind::integer: return fmt::format("the number {}", value.integer);
    case Kind::real: return fmt::format("the number {}", value.real);
    case Kind::text: return fmt::format("the text '{}'", printable(value.text));
    case Kind::bytes: return "bytes";
    case Kind::list: return "a list";
    case Kind::tuple: return "a tuple";
    case Kind::set: return "a set";
    case Kind::dictionary: return "a dictionary";
    case Kind::global: return fmt::format("the object {}", printable(value.name));
    case Kind::call: return fmt::format("a call of {}", printable(value.items[0]->name));
    case Kind::persistent: return "a stored object";
  }
  return "nothing";
}

}  // namespace linnet
