// Data sets of pictures with classes or texts, as people keep them: a folder of class sub-folders (ImageNet's
// layout), a folder with captions (io/captions.h), or a folder of tar files in which a picture "key.jpg" lies
// beside its class "key.cls" or its text "key.txt" (WebDataset's layout; a key ends at its name's first point).
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace linnet {

/// One picture as it is stored, not decoded.
struct StoredPicture {
  std::string name;  ///< for messages: its path, or that of its tar file and its name in there
  std::vector<std::byte> bytes;
  int64_t label = 0;
  std::string caption = {};
};

/// A folder's pictures and those of its sub-folders, linked ones too, by what their names say that they are,
/// but nothing hidden: in the order of their paths. A link that leads nowhere is one: reading it tells that it
/// is broken, where leaving it out would hide that a part of the pictures is missing.
std::vector<std::filesystem::path> pictures_below(const std::filesystem::path& folder);

struct PicturesOfClass {
  std::string name;
  std::vector<std::filesystem::path> pictures;
};
/// The class sub-folders of a data set, but hidden ones, in the order of their names. Throws Error when there
/// is no such folder, or a class's name is not UTF-8, or a class has no picture.
std::vector<PicturesOfClass> pictures_by_class(const std::filesystem::path& root);

/// What pictures are wanted with.
enum class PictureNotes : uint8_t { classes, captions };

class PictureSet {
 public:
  /// Parts are the tar files, or so many pictures of the folder. Classes are numbered in the order of their
  /// folders' names. Throws Error when there is neither a tar file nor a picture in a class folder, or with a
  /// text, or when there are both, and as pictures_by_class().
  static PictureSet open(const std::filesystem::path& root, int64_t pictures_a_part,
                         PictureNotes notes = PictureNotes::classes);

  int64_t parts() const;
  /// Empty if tar files number their classes without naming them.
  const std::vector<std::string>& class_names() const { return class_names_; }
  /// Each is a part; empty if there are none and pictures lie in folders.
  const std::vector<std::filesystem::path>& tars() const { return tars_; }
  /// In all; 0 if only reading the tar files would tell.
  int64_t count() const { return static_cast<int64_t>(files_.size()); }

  /// What tells whether a set is the same as before.
  struct Fingerprints {
    /// Of the files' names, sizes, classes and texts, the classes' names, and how they are parted.
    std::string files;
    /// Of the files' contents, by samples of each (sample_file): tells a set from one whose files have other
    /// contents of the same size, wherever it was copied to.
    std::string contents;
  };
  using OnChecked = std::function<void(int64_t done, int64_t count)>;
  /// Looks into every file, which takes long on a network's disk: on_checked is told, in the calling thread,
  /// how many of them are done, and may throw to stop.
  Fingerprints fingerprints(const OnChecked& on_checked = {}) const;

  using OnPicture = std::function<void(StoredPicture picture)>;
  using OnBroken = std::function<void(const std::string& name, const std::string& why)>;
  /// The pictures of a part, in a fixed order. What cannot be read, or has no class or text, goes to on_broken;
  /// what the callbacks throw passes through.
  void read(int64_t part, const OnPicture& on_picture, const OnBroken& on_broken) const;

 private:
  struct File {
    std::filesystem::path path;
    int64_t label = 0;
    std::string caption = {}, fault = {};  // as in CaptionedPicture
  };
  void take_class_folders();
  void check_tars_are_all() const;
  std::string fingerprint_of_files(const std::vector<uint64_t>& sizes) const;

  std::filesystem::path root_;
  int64_t pictures_a_part_ = 0;
  PictureNotes notes_ = PictureNotes::classes;
  std::vector<File> files_;
  std::vector<std::filesystem::path> tars_;
  std::vector<std::string> class_names_;
};

}  // namespace linnet
