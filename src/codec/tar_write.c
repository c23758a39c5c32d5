/* POSIX.1-2001 pax interchange format: a ustar header for every entry, preceded
 * by a header of type 'x' with records "LENGTH KEY=VALUE\n" for what ustar
 * cannot say. */
#include <assert.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "codec/tar.h"

#define BLOCK_SIZE   512
#define OCTAL_7_MAX  07777777u     /* fields of 8 bytes */
#define OCTAL_11_MAX 077777777777u /* fields of 12 bytes */
#define XATTR_PREFIX "SCHILY.xattr."
#define PAX_NAME     "PaxHeaders.0/"

struct ustar_header {
        char name[100];
        char mode[8];
        char uid[8];
        char gid[8];
        char size[12];
        char mtime[12];
        char checksum[8];
        char type;
        char link[100];
        char magic[6];
        char version[2];
        char user[32];
        char group[32];
        char dev_major[8];
        char dev_minor[8];
        char prefix[155];
        char pad[12];
};
static_assert(sizeof(struct ustar_header) == BLOCK_SIZE, "a header is a block");

struct tar_writer {
        tar_write *write;
        void *arg;
        uint64_t data_left; /* of the current entry */
        size_t padding;     /* after its data */
};

int tar_writer_create(tar_write *write, void *arg, struct tar_writer **ret, struct err *err)
{
        (void)err;
        struct tar_writer *writer = new0(struct tar_writer);
        writer->write = write;
        writer->arg = arg;
        *ret = writer;
        return 0;
}

static int write_zeros(struct tar_writer *writer, size_t size, struct err *err)
{
        static const char zeros[2 * BLOCK_SIZE];
        return size == 0 ? 0 : writer->write(writer->arg, zeros, size, err);
}

static size_t padding_after(uint64_t size)
{
        return (size_t)((BLOCK_SIZE - size % BLOCK_SIZE) % BLOCK_SIZE);
}

/* One pax record; its length counts itself. */
static void add_record(struct buf *records, const char *key, const void *value, size_t size)
{
        size_t rest = strlen(key) + size + 3; /* blank, '=', newline */
        size_t length = rest + 1;
        char digits[24];
        for (;;) {
                int n = snprintf(digits, sizeof(digits), "%zu", length);
                if (rest + (size_t)n == length)
                        break;
                length = rest + (size_t)n;
        }
        buf_printf(records, "%s %s=", digits, key);
        buf_append(records, value, size);
        buf_putc(records, '\n');
}

static void add_text(struct buf *records, const char *key, const char *value)
{
        add_record(records, key, value, strlen(value));
}

static void add_number(struct buf *records, const char *key, uint64_t value)
{
        char text[24];
        snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
        add_text(records, key, text);
}

static void add_time(struct buf *records, int64_t time_ns)
{
        uint64_t magnitude = time_ns < 0 ? -(uint64_t)time_ns : (uint64_t)time_ns;
        char text[40];
        int n = snprintf(text, sizeof(text), "%s%llu.%09llu", time_ns < 0 ? "-" : "",
                         (unsigned long long)(magnitude / NS_PER_S),
                         (unsigned long long)(magnitude % NS_PER_S));
        while (text[n - 1] == '0')
                text[--n] = '\0';
        if (text[n - 1] == '.')
                text[--n] = '\0';
        add_text(records, "mtime", text);
}

static bool is_ascii(const char *s)
{
        for (; *s; s++)
                if ((unsigned char)*s >= 0x80)
                        return false;
        return true;
}

/* Puts a path into name, or name and prefix; false where it does not fit. */
static bool put_path(struct ustar_header *header, const char *path)
{
        size_t length = strlen(path);
        if (!is_ascii(path))
                return false;
        if (length <= sizeof(header->name)) {
                memcpy(header->name, path, length);
                return true;
        }
        for (size_t i = length - 1; i > 0; i--) {
                /* Readers differ in what they make of a prefix that ends in a slash. */
                if (path[i] != '/' || path[i - 1] == '/' || i > sizeof(header->prefix))
                        continue;
                if (length - i - 1 > sizeof(header->name) || length - i - 1 == 0)
                        continue;
                memcpy(header->prefix, path, i);
                memcpy(header->name, path + i + 1, length - i - 1);
                return true;
        }
        return false;
}

/* What fits, for tools that do not know pax; libarchive also wants some target here
 * before it believes the one of a pax record. */
static void put_short_link(struct ustar_header *header, const char *link)
{
        for (size_t n = 0; *link && n < sizeof(header->link); link++)
                header->link[n++] = (unsigned char)*link < 0x80 ? *link : '_';
}

/* The end of the path, as far as it fits, likewise. */
static void put_short_path(struct ustar_header *header, const char *directory, const char *path)
{
        const char *base = strrchr(path, '/');
        base = base && base[1] ? base + 1 : path;
        size_t n = strlen(directory);
        memcpy(header->name, directory, n);
        for (; *base && n < sizeof(header->name); base++)
                header->name[n++] = (unsigned char)*base < 0x80 && *base != '/' ? *base : '_';
}

/* Octal, NUL-terminated. */
static void put_octal(char *field, size_t size, uint64_t value)
{
        field[size - 1] = '\0';
        for (size_t i = size - 1; i-- > 0; value >>= 3)
                field[i] = (char)('0' + (value & 7));
}

static void put_checksum(struct ustar_header *header)
{
        const unsigned char *bytes = (const unsigned char *)header;
        unsigned sum = 0;

        memset(header->checksum, ' ', sizeof(header->checksum));
        for (size_t i = 0; i < BLOCK_SIZE; i++)
                sum += bytes[i];
        put_octal(header->checksum, 7, sum);
        header->checksum[7] = ' ';
}

static void put_magic(struct ustar_header *header)
{
        memcpy(header->magic, "ustar", 6);
        memcpy(header->version, "00", 2);
}

static char type_of(const struct tar_entry *entry)
{
        if (entry->hard_link)
                return '1';
        switch (entry->mode & S_IFMT) {
        case S_IFREG:
                return '0';
        case S_IFLNK:
                return '2';
        case S_IFCHR:
                return '3';
        case S_IFBLK:
                return '4';
        case S_IFDIR:
                return '5';
        case S_IFIFO:
                return '6';
        default:
                return '\0';
        }
}

static int add_xattrs(const struct tar_entry *entry, struct buf *records, struct err *err)
{
        for (size_t i = 0; i < entry->xattrs_length; i++) {
                const struct tar_xattr *xattr = &entry->xattrs[i];
                if (strchr(xattr->name, '='))
                        return err_plain(err, EINVAL,
                                         "tar: '%.200s': attribute '%.100s' has a '=' in its name",
                                         entry->path, xattr->name);
                auto_free char *key = xasprintf(XATTR_PREFIX "%s", xattr->name);
                add_record(records, key, xattr->value, xattr->size_bytes);
        }
        return 0;
}

/* Fills the header; what does not fit goes to the records. */
static int fill(const struct tar_entry *entry, struct ustar_header *header, struct buf *records,
                struct err *err)
{
        bool is_directory = S_ISDIR(entry->mode);
        auto_free char *path = xasprintf("%s%s", entry->path, is_directory ? "/" : "");
        int64_t seconds = entry->mtime_ns / NS_PER_S;

        if (!put_path(header, path)) {
                put_short_path(header, "", path);
                add_text(records, "path", path);
        }
        if (entry->link) {
                put_short_link(header, entry->link);
                if (strlen(entry->link) > sizeof(header->link) || !is_ascii(entry->link))
                        add_text(records, "linkpath", entry->link);
        }
        if (header->type == '0' && entry->size_bytes > OCTAL_11_MAX)
                add_number(records, "size", entry->size_bytes);
        else if (header->type == '0')
                put_octal(header->size, sizeof(header->size), entry->size_bytes);
        else
                put_octal(header->size, sizeof(header->size), 0);
        if (entry->uid > OCTAL_7_MAX)
                add_number(records, "uid", entry->uid);
        put_octal(header->uid, sizeof(header->uid), entry->uid > OCTAL_7_MAX ? 0 : entry->uid);
        if (entry->gid > OCTAL_7_MAX)
                add_number(records, "gid", entry->gid);
        put_octal(header->gid, sizeof(header->gid), entry->gid > OCTAL_7_MAX ? 0 : entry->gid);

        bool fits = entry->mtime_ns >= 0 && (uint64_t)seconds <= OCTAL_11_MAX;
        if (!fits || entry->mtime_ns % NS_PER_S != 0)
                add_time(records, entry->mtime_ns);
        put_octal(header->mtime, sizeof(header->mtime), fits ? (uint64_t)seconds : 0);
        put_octal(header->mode, sizeof(header->mode), entry->mode & 07777);
        put_octal(header->dev_major, sizeof(header->dev_major), entry->dev_major);
        put_octal(header->dev_minor, sizeof(header->dev_minor), entry->dev_minor);
        put_magic(header);
        put_checksum(header);
        return add_xattrs(entry, records, err);
}

static int write_records(struct tar_writer *writer, const char *path, const struct buf *records,
                         struct err *err)
{
        struct ustar_header header = { .type = 'x' };

        put_short_path(&header, PAX_NAME, path);
        put_octal(header.mode, sizeof(header.mode), 0644);
        put_octal(header.uid, sizeof(header.uid), 0);
        put_octal(header.gid, sizeof(header.gid), 0);
        put_octal(header.size, sizeof(header.size), records->size);
        put_octal(header.mtime, sizeof(header.mtime), 0);
        put_magic(&header);
        put_checksum(&header);
        int r = writer->write(writer->arg, &header, sizeof(header), err);
        if (r < 0)
                return r;
        r = writer->write(writer->arg, records->data, records->size, err);
        if (r < 0)
                return r;
        return write_zeros(writer, padding_after(records->size), err);
}

static int finish_entry(struct tar_writer *writer, struct err *err)
{
        if (writer->data_left > 0)
                return err_plain(err, EINVAL, "tar: %llu bytes of the last entry are missing",
                                 (unsigned long long)writer->data_left);
        size_t padding = writer->padding;
        writer->padding = 0;
        return write_zeros(writer, padding, err);
}

int tar_writer_entry(struct tar_writer *writer, const struct tar_entry *entry, struct err *err)
{
        struct ustar_header header = { .type = type_of(entry) };
        auto_buf records = { 0 };

        int r = finish_entry(writer, err);
        if (r < 0)
                return r;
        if (header.type == '\0')
                return err_plain(err, EINVAL,
                                 "tar: '%.200s': a file of this type has no form in "
                                 "tar",
                                 entry->path);
        if (str_empty(entry->path))
                return err_plain(err, EINVAL, "tar: an entry needs a path");
        if (((header.type == '1' || header.type == '2') && str_empty(entry->link)))
                return err_plain(err, EINVAL, "tar: '%.200s': a link needs a target", entry->path);
        r = fill(entry, &header, &records, err);
        if (r < 0)
                return r;
        if (records.size > 0) {
                r = write_records(writer, entry->path, &records, err);
                if (r < 0)
                        return r;
        }
        r = writer->write(writer->arg, &header, sizeof(header), err);
        if (r < 0)
                return r;
        writer->data_left = header.type == '0' ? entry->size_bytes : 0;
        writer->padding = padding_after(writer->data_left);
        return 0;
}

int tar_writer_data(struct tar_writer *writer, const void *data, size_t size, struct err *err)
{
        if (size > writer->data_left)
                return err_plain(err, EINVAL, "tar: more data than the entry's size");
        int r = size == 0 ? 0 : writer->write(writer->arg, data, size, err);
        if (r == 0)
                writer->data_left -= size;
        return r;
}

int tar_writer_finish(struct tar_writer *writer, struct err *err)
{
        int r = finish_entry(writer, err);
        if (r < 0)
                return r;
        return write_zeros(writer, 2 * BLOCK_SIZE, err);
}

void tar_writer_destroy(struct tar_writer *writer)
{
        free(writer);
}
