/* The log reader: a source of bytes that somebody else draws through a pipe.
 *
 * It runs on the loop in small steps: a step reads at most READ_BYTES of the file (which
 * is in the page cache, or nearly so) and formats them into a queue; the queue is written
 * to the pipe as far as it takes it, and the next step is made when it is empty. At the
 * end of the file a follower waits for inotify, and for the end of the instance. */
#include "engine/logs.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "codec/json.h"
#include "engine/core.h"
#include "engine/log_record.h"
#include "engine/run.h"

#define READ_BYTES (64u << 10)
#define FILES_MAX  1000

/* -- times --------------------------------------------------------------------- */

/* "1h10m30.5s", Go's durations. */
static int parse_duration(const char *text, int64_t *ret_ns)
{
        static const struct {
                const char *unit;
                int64_t ns;
        } units[] = { { "ns", 1 },
                      { "us", NS_PER_US },
                      { "ms", NS_PER_MS },
                      { "h", 3600 * NS_PER_S },
                      { "m", 60 * NS_PER_S },
                      { "s", NS_PER_S } };
        int64_t total = 0;
        if (!*text)
                return -EINVAL;
        while (*text) {
                char *end;
                if (!isdigit((unsigned char)*text) && *text != '.')
                        return -EINVAL;
                double number = strtod(text, &end);
                size_t i = 0;
                while (i < ELEMENTS(units) && !str_starts(end, units[i].unit))
                        i++;
                if (end == text || i == ELEMENTS(units) || number > 1e9)
                        return -EINVAL;
                total += (int64_t)(number * (double)units[i].ns);
                text = end + strlen(units[i].unit);
        }
        *ret_ns = total;
        return 0;
}

/* "1700000000", "1700000000.000000001" */
static int parse_unix(const char *text, int64_t *ret_ns)
{
        size_t whole = strspn(text, "0123456789");
        if (whole == 0 || whole > 11)
                return -EINVAL;
        auto_free char *digits = xstrndup(text, whole);
        uint64_t seconds;
        if (str_to_u64(digits, &seconds) < 0 || seconds > INT64_MAX / NS_PER_S - 1)
                return -EINVAL;
        int64_t fraction = 0, place = NS_PER_S / 10;
        const char *at = text + whole;
        if (*at == '.')
                for (at++; isdigit((unsigned char)*at); at++, place /= 10)
                        fraction += (*at - '0') * place;
        if (*at)
                return -EINVAL;
        *ret_ns = (int64_t)seconds * NS_PER_S + fraction;
        return 0;
}

int log_time_parse(const char *text, int64_t now_ns, int64_t *ret_ns, struct err *err)
{
        int64_t duration;
        if (str_empty(text) || streq(text, "0")) {
                *ret_ns = 0;
                return 0;
        }
        if (parse_unix(text, ret_ns) == 0 || clock_parse(text, ret_ns) == 0)
                return 0;
        if (parse_duration(text, &duration) == 0) {
                *ret_ns = now_ns - duration;
                return 0;
        }
        /* "2026-01-02T03:04:05" and "2026-01-02" are meant in UTC here. */
        auto_free char *with_zone = xasprintf("%sZ", text);
        auto_free char *with_time = xasprintf("%sT00:00:00Z", text);
        if (clock_parse(with_zone, ret_ns) == 0 || clock_parse(with_time, ret_ns) == 0)
                return 0;
        return err_plain(err, EINVAL, "invalid value for time: failed to parse '%s'", text);
}

/* -- the stream ---------------------------------------------------------------- */

struct log_stream {
        struct engine *engine;
        struct list node;
        struct instance *instance; /* a reference */
        struct log_query query;
        bool framed;
        char *path;
        unsigned rotated; /* the file that is read: path.N, or path for 0 */
        int fd;
        off_t offset;       /* of what follows in `input` */
        struct buf input;   /* the beginning of a line */
        bool skipping;      /* a line that is too long */
        int64_t skip_lines; /* of tail */
        struct buf queue;
        int out_fd;
        struct loop_source *out, *notify;
        int notify_fd;
        struct instance_wait *wait;
        bool ended; /* nothing more will be written to the log */
        bool finished;
        /* attach: what is done with out_fd in the end */
        bool hand_over;
        struct pending_attach *attach;
};

static void stream_free(struct log_stream *s)
{
        list_remove(&s->node);
        loop_source_destroy(s->out);
        loop_source_destroy(s->notify);
        instance_wait_cancel(s->wait);
        close_fd(&s->notify_fd);
        close_fd(&s->fd);
        close_fd(&s->out_fd);
        buf_finish(&s->input);
        buf_finish(&s->queue);
        free(s->path);
        if (s->attach)
                free(s->attach->early);
        free(s->attach);
        instance_unref(s->instance);
        free(s);
}

static int open_file(struct log_stream *s, unsigned number)
{
        auto_free char *name = number ? xasprintf("%s.%u", s->path, number) : xstrdup(s->path);
        int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        close_fd(&s->fd);
        s->fd = fd;
        s->rotated = number;
        s->offset = 0;
        buf_reset(&s->input);
        s->skipping = false;
        return 0;
}

/* -- tail ---------------------------------------------------------------------- */

/* Newlines of an open file; it is read in large pieces from the page cache. */
static int64_t count_lines(int fd)
{
        auto_free char *buffer = xmalloc(READ_BYTES * 4);
        int64_t lines = 0;
        off_t offset = 0;
        for (;;) {
                ssize_t n = pread(fd, buffer, READ_BYTES * 4, offset);
                if (n <= 0)
                        return lines;
                for (char *at = buffer; (at = memchr(at, '\n', (size_t)(buffer + n - at))); at++)
                        lines++;
                offset += n;
        }
}

/* Offset in the file where its last `lines` lines begin, or -1 with what is lacking in
 * *ret_more where it has fewer. */
static off_t tail_offset(int fd, int64_t lines, int64_t *ret_more)
{
        char buffer[16384];
        struct stat st;
        if (fstat(fd, &st) < 0)
                return 0;
        off_t end = st.st_size;
        bool last = true; /* the newline that ends the file ends no line before it */
        while (end > 0) {
                size_t size = end < (off_t)sizeof(buffer) ? (size_t)end : sizeof(buffer);
                ssize_t n = pread(fd, buffer, size, end - (off_t)size);
                if (n != (ssize_t)size)
                        return 0;
                for (size_t i = size; i > 0; i--) {
                        bool newline = buffer[i - 1] == '\n';
                        if (newline && !last && --lines == 0)
                                return end - (off_t)size + (off_t)i;
                        last = false;
                }
                end -= (off_t)size;
        }
        *ret_more = lines > 0 && st.st_size > 0 ? lines - 1 : lines;
        return -1;
}

/* Opens the file where reading begins. */
static int open_first(struct log_stream *s)
{
        const struct log_query *q = &s->query;
        unsigned oldest = 0;
        while (oldest < FILES_MAX) {
                auto_free char *name = xasprintf("%s.%u", s->path, oldest + 1);
                if (access(name, F_OK) < 0)
                        break;
                oldest++;
        }
        if (q->tail < 0 || q->since_ns || q->until_ns || !(q->out && q->err)) {
                /* Lines that are filtered out do not count for a tail: decided in tail_all(). */
                while (open_file(s, oldest) < 0)
                        if (oldest-- == 0)
                                return -ENOENT;
                return 0;
        }
        int64_t lines = q->tail;
        for (unsigned number = 0; number <= oldest; number++) {
                int r = open_file(s, number);
                if (r < 0)
                        return number ? 0 : r;
                int64_t more = 0;
                off_t offset = lines ? tail_offset(s->fd, lines, &more) : lseek(s->fd, 0, SEEK_END);
                if (offset >= 0) {
                        s->offset = offset;
                        return 0;
                }
                if (more == 0)
                        return 0;
                lines = more;
        }
        return 0;
}

static bool wanted(const struct log_query *q, const struct log_record *record)
{
        return (record->stream == 2 ? q->err : q->out) &&
               (!q->since_ns || record->time_ns >= q->since_ns) &&
               (!q->until_ns || record->time_ns <= q->until_ns);
}

static void take_line(struct log_stream *s, const char *line, size_t size)
{
        struct log_record record = { 0 };
        if (log_record_parse(line, size, &record) == 0) {
                /* Records are in order of time. */
                if (s->query.until_ns && record.time_ns > s->query.until_ns)
                        s->finished = true;
                else if (wanted(&s->query, &record)) {
                        if (s->skip_lines > 0)
                                s->skip_lines--;
                        else
                                log_record_format(&record, s->framed, s->query.timestamps,
                                                  &s->queue);
                }
        }
        buf_finish(&record.text);
}

static void take_bytes(struct log_stream *s, const char *bytes, size_t size)
{
        const char *at = bytes, *end = bytes + size;
        while (at < end && !s->finished) {
                const char *newline = memchr(at, '\n', (size_t)(end - at));
                if (!newline) {
                        if (s->input.size + (size_t)(end - at) > LOG_RECORD_MAX) {
                                s->skipping = true;
                                buf_reset(&s->input);
                        } else if (!s->skipping) {
                                buf_append(&s->input, at, (size_t)(end - at));
                        }
                        return;
                }
                if (s->skipping) {
                        s->skipping = false;
                } else if (s->input.size) {
                        buf_append(&s->input, at, (size_t)(newline - at));
                        take_line(s, s->input.data, s->input.size);
                } else {
                        take_line(s, at, (size_t)(newline - at));
                }
                buf_reset(&s->input);
                at = newline + 1;
        }
}

/* At the end of a file: true where another one follows and is open now. */
static bool next_file(struct log_stream *s)
{
        if (s->rotated > 0) {
                unsigned next = s->rotated - 1;
                while (open_file(s, next) < 0)
                        if (next-- == 0)
                                return false;
                return true;
        }
        /* Rotated away under our hands? Or cut (max-file=1)? */
        struct stat ours, current;
        if (fstat(s->fd, &ours) < 0 || stat(s->path, &current) < 0)
                return false;
        if (ours.st_ino != current.st_ino)
                return open_file(s, 0) == 0;
        if (ours.st_size < s->offset) {
                s->offset = 0;
                buf_reset(&s->input);
                return true;
        }
        return false;
}

/* One piece more. False at the (present) end. */
static bool read_piece(struct log_stream *s)
{
        auto_free char *buffer = xmalloc(READ_BYTES);
        ssize_t n = pread(s->fd, buffer, READ_BYTES, s->offset);
        if (n <= 0)
                return next_file(s);
        s->offset += n;
        take_bytes(s, buffer, (size_t)n);
        return true;
}

static void stream_finish(struct log_stream *s)
{
        /* Before its descriptor moves on: elsewhere it stays open, and would stay watched. */
        loop_source_destroy(s->out);
        s->out = NULL;
        if (s->hand_over) {
                struct attach_options options = {
                        .in = s->attach->flags & MONITOR_ATTACH_IN,
                        .out = s->attach->flags & MONITOR_ATTACH_OUT,
                        .err = s->attach->flags & MONITOR_ATTACH_ERR,
                        .stream = true,
                        .detach_keys = (const char *)s->attach->early,
                };
                instance_attach(s->instance, &options, take_fd(s->out_fd), NULL);
        }
        stream_free(s);
}

/* Writes the queue. 1 when empty, 0 when the pipe is full, -errno when nobody reads. */
static int flush(struct log_stream *s)
{
        while (s->queue.size) {
                ssize_t n = write(s->out_fd, s->queue.data, s->queue.size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? 0 : -errno;
                buf_consume(&s->queue, (size_t)n);
        }
        return 1;
}

/* One turn: write what is there, read a piece more. */
static void stream_step(struct log_stream *s)
{
        bool more = true;
        int r = flush(s);
        if (r == 1 && !s->finished) {
                more = read_piece(s);
                r = flush(s);
        }
        if (r < 0) {
                s->hand_over = false;
                stream_finish(s);
                return;
        }
        if (r == 1 && (s->finished || (!more && (!s->query.follow || s->ended)))) {
                stream_finish(s);
                return;
        }
        /* Writable: step again. With nothing to read: only hang-ups are of interest. */
        loop_io_set(s->out, r == 0 || more ? EPOLLOUT : EPOLLERR);
}

static void out_ready(void *arg, uint32_t events)
{
        struct log_stream *s = arg;
        if (events & EPOLLERR) {
                s->hand_over = false;
                stream_finish(s);
                return;
        }
        stream_step(s);
}

static void notify_ready(void *arg, uint32_t events)
{
        struct log_stream *s = arg;
        char buffer[4096];
        (void)events;
        while (read(s->notify_fd, buffer, sizeof(buffer)) > 0)
                ;
        loop_io_set(s->out, EPOLLOUT);
}

static void instance_stopped(void *arg, int exit_code, const char *error)
{
        struct log_stream *s = arg;
        (void)exit_code;
        (void)error;
        s->wait = NULL;
        s->ended = true;
        loop_io_set(s->out, EPOLLOUT);
}

static int watch(struct log_stream *s, struct err *err)
{
        s->notify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        auto_free char *dir = instance_root_path(s->engine, s->instance->id);
        if (s->notify_fd < 0 ||
            inotify_add_watch(s->notify_fd, dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
                return err_set(err, errno, "watch the log of %s", s->instance->name);
        int r = loop_io(s->engine->loop, s->notify_fd, EPOLLIN, notify_ready, s, &s->notify, err);
        if (r < 0)
                return r;
        s->wait = instance_wait(s->instance, WAIT_NOT_RUNNING, instance_stopped, s);
        return 0;
}

/* How many of the wanted lines come before the tail: for tails with filters. */
static void skip_for_tail(struct log_stream *s)
{
        const struct log_query *q = &s->query;
        if (q->tail < 0 || !(q->since_ns || q->until_ns || !(q->out && q->err)))
                return;
        /* A dry run over the same files. */
        struct log_stream dry = { .path = s->path, .query = *q, .fd = -1, .framed = false };
        dry.query.tail = -1;
        int64_t total = 0;
        if (open_first(&dry) < 0)
                return;
        do {
                int64_t lines = count_lines(dry.fd);
                dry.skip_lines = lines;
                while (dry.offset < lseek(dry.fd, 0, SEEK_END) && read_piece(&dry) && !dry.finished)
                        ;
                total += lines - dry.skip_lines;
        } while (dry.rotated > 0 && !dry.finished && open_file(&dry, dry.rotated - 1) == 0);
        close_fd(&dry.fd);
        buf_finish(&dry.input);
        buf_finish(&dry.queue);
        s->skip_lines = total > q->tail ? total - q->tail : 0;
}

/* Finds the place to begin at. On a worker: the loop does not know the stream yet. */
static void prepare_in_worker(void *arg)
{
        struct log_stream *s = arg;
        if (open_first(s) < 0)
                s->fd = -1;
        else
                skip_for_tail(s);
}

static void prepared(void *arg)
{
        struct log_stream *s = arg;
        struct instance *i = s->instance;
        struct err err = { 0 };
        s->ended = !instance_is_running(i) && !i->private->run && i->state != INSTANCE_RESTARTING;
        int r = loop_io(s->engine->loop, s->out_fd, EPOLLOUT, out_ready, s, &s->out, &err);
        if (r == 0 && s->query.follow && !s->ended)
                r = watch(s, &err);
        if (r < 0) {
                log_error("logs of %s: %s", i->name, err_text(&err));
                stream_free(s);
                return;
        }
        if (s->fd >= 0)
                return;
        /* Nothing was ever logged: an empty stream, or one that waits for it. */
        if (!s->query.follow || s->ended)
                s->finished = true;
        else
                s->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* `out_fd` is taken and made non-blocking. */
static struct log_stream *stream_start(struct instance *instance, const struct log_query *query,
                                       int out_fd)
{
        struct log_stream *s = new0(struct log_stream);
        *s = (struct log_stream){
                .engine = instance_engine(instance),
                .instance = instance_ref(instance),
                .query = *query,
                .framed = !instance->spec.config.tty,
                .path = xstrdup(instance->log_path),
                .fd = -1,
                .out_fd = out_fd,
                .notify_fd = -1,
        };
        fcntl(out_fd, F_SETFL, fcntl(out_fd, F_GETFL) | O_NONBLOCK);
        list_append(&s->engine->log_streams, &s->node);
        workers_submit(s->engine->workers, prepare_in_worker, prepared, s);
        return s;
}

void logs_destroy(struct engine *engine)
{
        list_for_each_safe (struct log_stream, s, &engine->log_streams, node)
                stream_free(s);
}

int instance_logs(struct instance *instance, const struct log_query *query, int *ret_fd,
                  struct err *err)
{
        if (!instance->log_path)
                return err_plain(err, ENOTSUP,
                                 "configured logging driver does not support reading");
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        stream_start(instance, query, ends[1]);
        *ret_fd = ends[0];
        return 0;
}

int attach_with_logs(struct instance *instance, const struct attach_options *options,
                     const struct monitor_message *message, int fd, struct err *err)
{
        auto_fd client = fd;
        if (!options->logs || !instance->log_path) {
                if (!options->stream)
                        return 0; /* nothing was asked for: the connection ends */
                struct attach_options plain = *options;
                plain.logs = false;
                return instance_attach(instance, &plain, take_fd(client), err);
        }
        struct log_query query = { .out = options->out, .err = options->err, .tail = -1 };
        struct log_stream *stream = stream_start(instance, &query, take_fd(client));
        stream->hand_over = options->stream;
        stream->attach = new0(struct pending_attach);
        stream->attach->flags = message->flags;
        stream->attach->early = options->detach_keys ? xstrdup(options->detach_keys) : NULL;
        return 0;
}
