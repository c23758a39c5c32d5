#include "monitor/jsonlog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/utf8.h"

int jsonlog_open(struct jsonlog *log, const char *path, uint64_t max_bytes, unsigned max_files,
                 struct err *err)
{
        auto_fd fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_set(err, errno, "open log '%s'", path);
        *log = (struct jsonlog){
                .path = xstrdup(path),
                .fd = take_fd(fd),
                .size_bytes = (uint64_t)st.st_size,
                .max_bytes = max_bytes,
                .max_files = max_files ? max_files : 1,
        };
        return 0;
}

/* Bytes that stand for themselves in a JSON string. */
static bool is_plain(unsigned char c)
{
        return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void escape(struct buf *out, const char *text, size_t size)
{
        const unsigned char *s = (const unsigned char *)text;
        for (size_t i = 0; i < size;) {
                size_t run = i;
                while (run < size && is_plain(s[run]))
                        run++;
                buf_append(out, s + i, run - i);
                i = run;
                if (i == size)
                        break;
                size_t length = utf8_length(s + i, size - i);
                if (s[i] == '\n')
                        buf_puts(out, "\\n");
                else if (s[i] == '\r')
                        buf_puts(out, "\\r");
                else if (s[i] == '\t')
                        buf_puts(out, "\\t");
                else if (s[i] == '"' || s[i] == '\\')
                        buf_printf(out, "\\%c", s[i]);
                else if (length > 1)
                        buf_append(out, s + i, length);
                else if (length == 1)
                        buf_printf(out, "\\u%04x", s[i]);
                else
                        buf_puts(out, "\\ufffd");
                i += length ? length : 1;
        }
}

void jsonlog_format(struct buf *out, const char *text, size_t size, enum jsonlog_stream stream,
                    int64_t time_ns)
{
        char time[CLOCK_TEXT_SIZE];
        clock_format(time_ns, time);
        buf_puts(out, "{\"log\":\"");
        escape(out, text, size);
        buf_puts(out, stream == JSONLOG_ERR ? "\",\"stream\":\"stderr\",\"time\":\""
                                            : "\",\"stream\":\"stdout\",\"time\":\"");
        buf_puts(out, time);
        buf_puts(out, "\"}\n");
}

static char *rotated_name(const struct jsonlog *log, unsigned number)
{
        return number ? xasprintf("%s.%u", log->path, number) : xstrdup(log->path);
}

/* Moves every file one up and begins a new one. A failure leaves the present one in use. */
static void rotate(struct jsonlog *log)
{
        if (log->max_files == 1) {
                if (ftruncate(log->fd, 0) == 0)
                        log->size_bytes = 0;
                return;
        }
        for (unsigned number = log->max_files - 1; number > 0; number--) {
                auto_free char *from = rotated_name(log, number - 1);
                auto_free char *to = rotated_name(log, number);
                if (rename(from, to) < 0 && errno != ENOENT)
                        return;
        }
        int fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0)
                return;
        close(log->fd);
        log->fd = fd;
        log->size_bytes = 0;
}

static void write_batch(struct jsonlog *log)
{
        if (log->batch.size == 0)
                return;
        if (log->max_bytes && log->size_bytes && log->size_bytes + log->batch.size > log->max_bytes)
                rotate(log);
        ssize_t n;
        do {
                n = write(log->fd, log->batch.data, log->batch.size);
        } while (n < 0 && errno == EINTR);
        if (n == (ssize_t)log->batch.size) {
                log->size_bytes += log->batch.size;
        } else {
                /* Keep the lines that are whole. */
                size_t kept = 0;
                for (size_t i = 0; n > 0 && i < (size_t)n; i++)
                        if (log->batch.data[i] == '\n')
                                kept = i + 1;
                log->size_bytes += kept;
                log->lost_bytes += log->batch.size - kept;
                if (n > 0 && ftruncate(log->fd, (off_t)log->size_bytes) < 0)
                        log->lost_bytes++;
        }
        buf_reset(&log->batch);
}

/* The largest prefix of at most JSONLOG_LINE_MAX bytes that ends between two characters. */
static size_t piece_size(const char *text)
{
        size_t size = JSONLOG_LINE_MAX;
        for (size_t back = 1; back <= 3; back++) {
                unsigned char c = (unsigned char)text[size - back];
                if (c < 0x80)
                        break;
                if (c >= 0xc0) {
                        size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
                        return length > back ? size - back : size;
                }
        }
        return size;
}

void jsonlog_write(struct jsonlog *log, enum jsonlog_stream stream, const void *data, size_t size,
                   int64_t now_ns)
{
        struct buf *pending = &log->pending[stream];
        const char *at = data, *end = at + size;
        while (at < end) {
                const char *newline = memchr(at, '\n', (size_t)(end - at));
                size_t take = newline ? (size_t)(newline + 1 - at) : (size_t)(end - at);
                size_t room = JSONLOG_LINE_MAX - pending->size;
                if (take > room) {
                        take = room;
                        newline = NULL;
                }
                if (newline && pending->size == 0) {
                        jsonlog_format(&log->batch, at, take, stream, now_ns);
                        at += take;
                        continue;
                }
                buf_append(pending, at, take);
                at += take;
                if (newline) {
                        jsonlog_format(&log->batch, pending->data, pending->size, stream, now_ns);
                        buf_reset(pending);
                } else if (pending->size == JSONLOG_LINE_MAX) {
                        size_t piece = piece_size(pending->data);
                        jsonlog_format(&log->batch, pending->data, piece, stream, now_ns);
                        buf_consume(pending, piece);
                }
        }
        write_batch(log);
}

void jsonlog_close(struct jsonlog *log, int64_t now_ns)
{
        if (!log->path)
                return;
        for (int stream = 0; stream < JSONLOG_STREAMS; stream++) {
                struct buf *pending = &log->pending[stream];
                if (pending->size)
                        jsonlog_format(&log->batch, pending->data, pending->size,
                                       (enum jsonlog_stream)stream, now_ns);
                buf_finish(pending);
        }
        write_batch(log);
        buf_finish(&log->batch);
        close(log->fd);
        free(log->path);
        *log = (struct jsonlog){ .fd = -1 };
}
