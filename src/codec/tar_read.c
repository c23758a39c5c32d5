#include <archive.h>
#include <archive_entry.h>
#include <assert.h>
#include <locale.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/str.h"
#include "codec/tar.h"

#define ENTRIES_DEFAULT      4000000
#define DATA_BYTES_DEFAULT   ((uint64_t)1 << 40)
#define PATH_BYTES_DEFAULT   4096
#define XATTRS_DEFAULT       64
#define XATTR_BYTES_DEFAULT  65536
#define HEADER_BYTES_DEFAULT ((size_t)2 << 20)

#define XATTR_NAME_LENGTH_MAX 255   /* XATTR_NAME_MAX */
#define DEVICE_MAJOR_MAX      0xfff /* the kernel's 12 and 20 bits */
#define DEVICE_MINOR_MAX      0xfffff
#define SLICE_SIZE            ((size_t)64 << 10) /* given to libarchive at once, see feed() */

struct tar_reader {
        struct archive *archive;
        locale_t locale;
        struct tar_limits limits;
        tar_read *read;
        void *arg;

        const char *block; /* from `read`, not yet given to libarchive */
        size_t block_left;
        bool primed; /* see prime() */
        bool in_header;
        size_t header_left; /* bytes that may still be read for this header */
        int read_result;    /* what `read` returned when it failed, or our own refusal; else 0 */
        struct err *err;    /* of the call in progress */

        uint64_t entries;
        uint64_t data_bytes;
        char *path;                /* of the current entry, without trailing slashes */
        struct tar_xattr *xattrs;  /* limits.xattrs of them */
        uint64_t size_bytes, done; /* of the current entry's data */
};

/* A symbolic link that is put in front of every stream and then passed over.
 * libarchive 3.6 loses the target of the first link of an archive where only a
 * pax record has it, because its string for targets is not allocated yet. It also
 * settles the format, so that an empty stream needs no care. */
static const struct primer {
        char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
        char magic[8], rest[247];
} primer = { "x", "0000000", "0000000",     "0000000", "00000000000", "00000000000", "006302\0 ",
             '2', "y",       "ustar\00000", "" };
static_assert(sizeof(primer) == 512, "a header is a block");

/* libarchive asks for more. The stream is cut into slices, so that the bytes
 * that a header takes are counted closely enough. */
static la_ssize_t feed(struct archive *archive, void *arg, const void **ret)
{
        struct tar_reader *reader = arg;

        if (!reader->primed) {
                reader->primed = true;
                *ret = &primer;
                return sizeof(primer);
        }
        if (reader->block_left == 0) {
                const void *block = NULL;
                ssize_t size = reader->read(reader->arg, &block, reader->err);
                if (size < 0) {
                        reader->read_result = (int)size;
                        archive_set_error(archive, (int)-size, "read");
                        return -1;
                }
                reader->block = block;
                reader->block_left = (size_t)size;
        }
        size_t size = reader->block_left < SLICE_SIZE ? reader->block_left : SLICE_SIZE;
        if (reader->in_header && reader->header_left == 0) {
                reader->read_result = err_plain(
                        reader->err, E2BIG, "tar: header of entry %llu is larger than %zu",
                        (unsigned long long)reader->entries + 1, reader->limits.header_bytes);
                archive_set_error(archive, E2BIG, "header");
                return -1;
        }
        reader->header_left -= size < reader->header_left ? size : reader->header_left;
        *ret = reader->block;
        if (size > 0) /* the block is NULL at the end */
                reader->block += size;
        reader->block_left -= size;
        return (la_ssize_t)size;
}

static int damaged(struct tar_reader *reader, const char *what)
{
        return err_plain(reader->err, EBADMSG, "tar: entry %llu '%.200s': %s",
                         (unsigned long long)reader->entries, reader->path ? reader->path : "",
                         what);
}

/* Translates libarchive's failure; `read`'s own goes through unchanged. */
static int failed(struct tar_reader *reader)
{
        const char *text = archive_error_string(reader->archive);
        if (reader->read_result < 0)
                return reader->read_result;
        if (archive_errno(reader->archive) == ENOMEM)
                return err_set(reader->err, ENOMEM, "tar");
        return damaged(reader, text ? text : "damaged");
}

#define DEFAULT(limits, member, value)                                                             \
        ((limits) && (limits)->member > 0 ? (limits)->member : (value))

int tar_reader_create(tar_read *read, void *arg, const struct tar_limits *limits,
                      struct tar_reader **ret, struct err *err)
{
        auto_tar_reader reader = new0(struct tar_reader);
        reader->read = read;
        reader->arg = arg;
        reader->limits = (struct tar_limits){
                .entries = DEFAULT(limits, entries, ENTRIES_DEFAULT),
                .data_bytes = DEFAULT(limits, data_bytes, DATA_BYTES_DEFAULT),
                .path_bytes = DEFAULT(limits, path_bytes, PATH_BYTES_DEFAULT),
                .xattrs = DEFAULT(limits, xattrs, XATTRS_DEFAULT),
                .xattr_bytes = DEFAULT(limits, xattr_bytes, XATTR_BYTES_DEFAULT),
                .header_bytes = DEFAULT(limits, header_bytes, HEADER_BYTES_DEFAULT),
        };
        /* libarchive converts pax names to the locale's character set, composing
         * what is decomposed where that is UTF-8. In the C locale it cannot and
         * hands out the bytes. */
        reader->locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        reader->xattrs = xcalloc(reader->limits.xattrs, sizeof(*reader->xattrs));
        reader->archive = archive_read_new();
        if (!reader->archive || !reader->locale)
                return err_set(err, ENOMEM, "tar");
        archive_read_support_format_tar(reader->archive);
        *ret = take_ptr(reader);
        return 0;
}

/* Opens the archive and passes over the primer. */
static int prime(struct tar_reader *reader)
{
        struct archive_entry *entry;
        if (archive_read_open(reader->archive, reader, NULL, feed, NULL) != ARCHIVE_OK ||
            archive_read_next_header(reader->archive, &entry) != ARCHIVE_OK)
                return failed(reader);
        return 0;
}

static int take_path(struct tar_reader *reader, const char *path)
{
        size_t length = path ? strlen(path) : 0;

        free(reader->path);
        reader->path = NULL;
        if (length >= reader->limits.path_bytes)
                return err_plain(reader->err, ENAMETOOLONG,
                                 "tar: entry %llu: path '%.100s…' is longer than %zu bytes",
                                 (unsigned long long)reader->entries, path,
                                 reader->limits.path_bytes - 1);
        while (length > 1 && path[length - 1] == '/')
                length--;
        if (length == 0)
                return damaged(reader, "path is empty");
        reader->path = xstrndup(path, length);
        return 0;
}

static int take_link(struct tar_reader *reader, struct archive_entry *from, struct tar_entry *to)
{
        const char *hard = archive_entry_hardlink(from);
        const char *link = hard ? hard : archive_entry_symlink(from);

        if (hard)
                to->mode = (to->mode & 07777) | S_IFREG;
        else if (!S_ISLNK(to->mode))
                return 0;
        if (str_empty(link))
                return damaged(reader, "link has no target");
        if (strlen(link) >= reader->limits.path_bytes)
                return err_plain(reader->err, ENAMETOOLONG,
                                 "tar: entry %llu '%.200s': link target is longer than %zu bytes",
                                 (unsigned long long)reader->entries, reader->path,
                                 reader->limits.path_bytes - 1);
        to->link = link;
        to->hard_link = hard != NULL;
        return 0;
}

static int take_numbers(struct tar_reader *reader, struct archive_entry *from, struct tar_entry *to)
{
        la_int64_t uid = archive_entry_uid(from), gid = archive_entry_gid(from);
        la_int64_t size = archive_entry_size(from);
        time_t seconds = archive_entry_mtime(from);
        long fraction = archive_entry_mtime_nsec(from);

        if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
                return damaged(reader, "owner is out of range");
        if (size < 0)
                return damaged(reader, "size is out of range");
        if (fraction < 0 || fraction >= NS_PER_S || seconds >= INT64_MAX / NS_PER_S ||
            seconds <= INT64_MIN / NS_PER_S)
                return damaged(reader, "time is out of range");
        to->uid = (uid_t)uid;
        to->gid = (gid_t)gid;
        /* libarchive reads "-1.5" as -1 and 0.5. */
        to->mtime_ns = (int64_t)seconds * NS_PER_S + (seconds < 0 ? -fraction : fraction);
        if (S_ISREG(to->mode) && !to->hard_link)
                to->size_bytes = (uint64_t)size;
        if (S_ISBLK(to->mode) || S_ISCHR(to->mode)) {
                uint64_t major = archive_entry_rdevmajor(from);
                uint64_t minor = archive_entry_rdevminor(from);
                if (major > DEVICE_MAJOR_MAX || minor > DEVICE_MINOR_MAX)
                        return damaged(reader, "device number is out of range");
                to->dev_major = (unsigned)major;
                to->dev_minor = (unsigned)minor;
        }
        return 0;
}

static int take_xattrs(struct tar_reader *reader, struct archive_entry *from, struct tar_entry *to)
{
        const char *name;
        const void *value;
        size_t size, length = (size_t)archive_entry_xattr_count(from), i = length;

        if (length > reader->limits.xattrs)
                return err_plain(reader->err, E2BIG,
                                 "tar: entry %llu '%.200s': more than %zu extended attributes",
                                 (unsigned long long)reader->entries, reader->path,
                                 reader->limits.xattrs);
        archive_entry_xattr_reset(from);
        while (i > 0 && archive_entry_xattr_next(from, &name, &value, &size) == ARCHIVE_OK) {
                if (str_empty(name) || strlen(name) > XATTR_NAME_LENGTH_MAX)
                        return damaged(reader, "extended attribute has a bad name");
                if (size > reader->limits.xattr_bytes)
                        return err_plain(reader->err, E2BIG,
                                         "tar: entry %llu '%.200s': extended attribute is larger "
                                         "than %zu bytes",
                                         (unsigned long long)reader->entries, reader->path,
                                         reader->limits.xattr_bytes);
                reader->xattrs[--i] = (struct tar_xattr){ name, value, size }; /* newest first */
        }
        to->xattrs = reader->xattrs + i;
        to->xattrs_length = length - i;
        return 0;
}

static int take_entry(struct tar_reader *reader, struct archive_entry *from, struct tar_entry *ret)
{
        struct tar_entry entry = { .mode = archive_entry_mode(from) & (S_IFMT | 07777) };

        int r = take_path(reader, archive_entry_pathname(from));
        if (r < 0)
                return r;
        entry.path = reader->path;
        r = take_link(reader, from, &entry);
        if (r < 0)
                return r;
        if ((entry.mode & S_IFMT) == 0 || S_ISSOCK(entry.mode))
                return damaged(reader, "unknown type");
        r = take_numbers(reader, from, &entry);
        if (r < 0)
                return r;
        r = take_xattrs(reader, from, &entry);
        if (r < 0)
                return r;

        if (entry.size_bytes > reader->limits.data_bytes - reader->data_bytes)
                return err_plain(reader->err, E2BIG,
                                 "tar: entry %llu '%.200s': the files of the archive are larger "
                                 "than %llu bytes together",
                                 (unsigned long long)reader->entries, reader->path,
                                 (unsigned long long)reader->limits.data_bytes);
        reader->data_bytes += entry.size_bytes;
        reader->size_bytes = entry.size_bytes;
        reader->done = 0;
        *ret = entry;
        return 1;
}

/* libarchive warns where it could not convert a name, and then hands out its
 * bytes, which is what is wanted; anything else that it would overlook is damage. */
static bool is_harmless(struct archive *archive)
{
        const char *text = archive_error_string(archive);
        return text && strstr(text, "can't be converted");
}

static int next(struct tar_reader *reader, struct tar_entry *ret)
{
        struct archive_entry *entry = NULL;
        int r;

        r = reader->primed ? 0 : prime(reader);
        if (r < 0)
                return r;
        if (archive_read_data_skip(reader->archive) < ARCHIVE_OK)
                return failed(reader);
        reader->in_header = true;
        reader->header_left = reader->limits.header_bytes;
        r = archive_read_next_header(reader->archive, &entry);
        reader->in_header = false;
        if (r == ARCHIVE_EOF) /* also where libarchive takes a failed read for the end */
                return reader->read_result;
        reader->entries++;
        if (r != ARCHIVE_OK && !(r == ARCHIVE_WARN && is_harmless(reader->archive))) {
                free(reader->path);
                reader->path = NULL;
                return failed(reader);
        }
        if (reader->entries > reader->limits.entries)
                return err_plain(reader->err, E2BIG, "tar: more than %llu entries",
                                 (unsigned long long)reader->limits.entries);
        return take_entry(reader, entry, ret);
}

int tar_reader_next(struct tar_reader *reader, struct tar_entry *ret, struct err *err)
{
        locale_t before = uselocale(reader->locale);
        reader->err = err;
        int r = next(reader, ret);
        reader->err = NULL;
        uselocale(before);
        return r;
}

int tar_reader_data(struct tar_reader *reader, const void **ret, size_t *ret_size,
                    uint64_t *ret_offset, struct err *err)
{
        const void *data;
        size_t size = 0;
        la_int64_t offset;

        reader->err = err;
        while (size == 0) {
                int r = archive_read_data_block(reader->archive, &data, &size, &offset);
                if (r == ARCHIVE_EOF)
                        return reader->read_result;
                if (r != ARCHIVE_OK)
                        return failed(reader);
        }
        /* A map of holes is the sender's: it may say anything. */
        if (offset < 0 || (uint64_t)offset < reader->done ||
            (uint64_t)offset > reader->size_bytes || size > reader->size_bytes - (uint64_t)offset)
                return damaged(reader, "data lies outside of the file");
        reader->done = (uint64_t)offset + size;
        *ret = data;
        *ret_size = size;
        *ret_offset = (uint64_t)offset;
        return 1;
}

int tar_reader_drain(struct tar_reader *reader, struct err *err)
{
        const void *block;
        ssize_t size;

        while ((size = reader->read(reader->arg, &block, err)) > 0)
                ;
        return (int)size;
}

void tar_reader_destroy(struct tar_reader *reader)
{
        if (!reader)
                return;
        archive_read_free(reader->archive);
        if (reader->locale)
                freelocale(reader->locale);
        free(reader->xattrs);
        free(reader->path);
        free(reader);
}
