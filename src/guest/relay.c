#include "guest/relay.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "codec/stdcopy.h"
#include "guest/session.h"

#define PIECE_BYTES    65536
#define LAST_BYTES_MAX 65536 /* of what the guest says last */
#define ZEROS_BYTES    65536

struct relay {
        relay_read *read;
        void *read_arg;
        const char *as;
        struct stdcopy frames;
        struct buf data; /* of the archive, from one piece */
        struct buf last; /* what the guest says last */
        bool ended;
        char *directory; /* that the last entry is or lies in; NULL before the first */
        char piece[PIECE_BYTES];
};

/* --- frames --- */

static int take_frame(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                      struct err *err)
{
        struct relay *relay = arg;
        bool is_data = stream == STDCOPY_STDOUT && relay->last.size == 0;
        if (!is_data && (stream != STDCOPY_SYSTEM || relay->last.size + size > LAST_BYTES_MAX))
                return err_plain(err, EPROTO, "the guest's archive has a frame of stream %d",
                                 stream);
        return buf_append(is_data ? &relay->data : &relay->last, data, size);
}

static ssize_t pull(void *arg, const void **ret_block, struct err *err)
{
        struct relay *relay = arg;
        buf_reset(&relay->data);
        while (relay->data.size == 0 && !relay->ended) {
                ssize_t n = relay->read(relay->read_arg, relay->piece, sizeof(relay->piece), err);
                if (n < 0)
                        return n;
                relay->ended = n == 0;
                int r = stdcopy_feed(&relay->frames, relay->piece, (size_t)n, take_frame, relay,
                                     err);
                if (r < 0)
                        return r;
        }
        *ret_block = relay->data.data;
        return (ssize_t)relay->data.size;
}

/* What the guest says of the archive; `r`: what we do. */
static int outcome(struct relay *relay, int r, struct err *err)
{
        auto_agent_reply reply = { 0 };
        const void *rest;
        while (r == 0 && !relay->ended) /* nothing but the last frame is to come */
                r = (int)pull(relay, &rest, err) > 0 ? err_plain(err, EPROTO,
                                                                 "the guest's archive goes on "
                                                                 "behind its end")
                                                     : 0;
        if (!relay->ended || !stdcopy_whole(&relay->frames) || relay->last.size == 0)
                return r < 0 ? r : err_plain(err, ECONNRESET, "the guest's archive was cut short");
        struct err said = { 0 };
        int told = agent_take_reply(relay->last.data, relay->last.size, &reply, &said);
        if (told == 0)
                return r;
        *err = said; /* the reason of whatever we saw */
        return told;
}

/* --- rules --- */

static bool lies_within(const char *path, const char *directory)
{
        const char *rest = str_after(path, directory);
        return rest && (!*rest || *rest == '/');
}

static bool is_plain(const char *component)
{
        return *component && !streq(component, ".") && !streq(component, "..");
}

/* Beneath the first entry, by no ways but names. */
static bool is_beneath(const char *path, const char *as)
{
        const char *rest = str_after(path, as);
        if (!rest || *rest != '/')
                return false;
        auto_strv components = str_split(rest + 1, '/');
        for (char **component = components; *component; component++)
                if (!is_plain(*component))
                        return false;
        return true;
}

/* In a directory that is open, and has been made by this archive. */
static int check_place(struct relay *relay, const struct tar_entry *entry, struct err *err)
{
        const char *path = entry->path, *slash = strrchr(path, '/');
        auto_free char *parent = xstrndup(path, slash ? (size_t)(slash - path) : 0);
        bool fits = relay->directory ? *parent && is_plain(slash + 1) &&
                                               lies_within(relay->directory, parent)
                                     : streq(path, relay->as);
        if (!fits)
                return err_plain(err, EPROTO, "'%s' is not where the guest's archive can have it",
                                 path);
        free(relay->directory);
        relay->directory = S_ISDIR(entry->mode) && !entry->hard_link ? xstrdup(path)
                                                                     : take_ptr(parent);
        return 0;
}

static int check_entry(struct relay *relay, const struct tar_entry *entry, struct err *err)
{
        int r = check_place(relay, entry, err);
        if (r < 0)
                return r;
        if (entry->hard_link && !is_beneath(entry->link, relay->as))
                return err_plain(err, EPROTO, "'%s' of the guest's archive is a link out of it",
                                 entry->path);
        for (size_t i = 0; i < entry->xattrs_length; i++)
                if (!streq(entry->xattrs[i].name, "security.capability") &&
                    !str_starts(entry->xattrs[i].name, "user."))
                        return err_plain(err, EPROTO,
                                         "'%s' of the guest's archive has the attribute '%s'",
                                         entry->path, entry->xattrs[i].name);
        return 0;
}

/* --- the new archive --- */

static int put_zeros(struct tar_writer *writer, uint64_t size, struct err *err)
{
        static const char zeros[ZEROS_BYTES];
        int r = 0;
        while (r == 0 && size > 0) {
                size_t step = size < ZEROS_BYTES ? (size_t)size : ZEROS_BYTES;
                r = tar_writer_data(writer, zeros, step, err);
                size -= step;
        }
        return r;
}

static int put_entry(struct tar_reader *reader, struct tar_writer *writer,
                     const struct tar_entry *entry, struct err *err)
{
        uint64_t size = S_ISREG(entry->mode) && !entry->hard_link ? entry->size_bytes : 0;
        uint64_t at = 0, offset;
        const void *data;
        size_t length;
        int r = tar_writer_entry(writer, entry, err), more = 0;
        while (r == 0 && (more = tar_reader_data(reader, &data, &length, &offset, err)) > 0) {
                r = put_zeros(writer, offset - at, err);
                if (r == 0)
                        r = tar_writer_data(writer, data, length, err);
                at = offset + length;
        }
        if (r == 0 && more < 0)
                r = more;
        return r == 0 ? put_zeros(writer, size - at, err) : r;
}

static int pass_entries(struct relay *relay, struct tar_reader *reader, struct tar_writer *writer,
                        struct err *err)
{
        struct tar_entry entry;
        int r;
        while ((r = tar_reader_next(reader, &entry, err)) > 0) {
                r = check_entry(relay, &entry, err);
                if (r == 0)
                        r = put_entry(reader, writer, &entry, err);
                if (r < 0)
                        return r;
        }
        if (r == 0 && !relay->directory)
                return err_plain(err, EPROTO, "the guest's archive is empty");
        return r == 0 ? tar_reader_drain(reader, err) : r;
}

int relay_archive(relay_read *read, void *read_arg, const char *as, tar_write *write,
                  void *write_arg, struct err *err)
{
        auto_free struct relay *relay = new0(struct relay);
        auto_tar_reader reader = NULL;
        auto_tar_writer writer = NULL;
        *relay = (struct relay){ .read = read, .read_arg = read_arg, .as = as };
        int r = tar_reader_create(pull, relay, NULL, &reader, err);
        if (r == 0)
                r = tar_writer_create(write, write_arg, &writer, err);
        if (r == 0)
                r = pass_entries(relay, reader, writer, err);
        r = outcome(relay, r, err);
        if (r == 0)
                r = tar_writer_finish(writer, err);
        buf_finish(&relay->data);
        buf_finish(&relay->last);
        free(relay->directory);
        return r;
}
