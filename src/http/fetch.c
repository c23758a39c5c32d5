#include "http/fetch.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"

#define CONNECT_TIMEOUT_NS        (15 * NS_PER_S)
#define STALL_TIMEOUT_NS          (30 * NS_PER_S)
#define RECEIVE_SIZE_BYTES        (128L << 10)
#define ERROR_DISCARD_LIMIT_BYTES (1u << 20) /* of an error's body, then the connection is cut */

/* libcurl, loaded by the first fetcher: linked in, it and the thirty libraries it needs
 * (Kerberos, LDAP, SSH…) cost 6 MB of resident memory and 14 ms at every start of a
 * daemon that may never pull anything. */
static struct {
        CURLcode (*global_init)(long flags);
        CURL *(*easy_init)(void);
        void (*easy_cleanup)(CURL *handle);
        void (*easy_reset)(CURL *handle);
        CURLcode (*easy_setopt)(CURL *handle, CURLoption option, ...);
        CURLcode (*easy_perform)(CURL *handle);
        CURLcode (*easy_getinfo)(CURL *handle, CURLINFO info, ...);
        const char *(*easy_strerror)(CURLcode code);
        struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
        void (*slist_free_all)(struct curl_slist *list);
        CURLU *(*url)(void);
        void (*url_cleanup)(CURLU *url);
        CURLUcode (*url_set)(CURLU *url, CURLUPart part, const char *text, unsigned flags);
        CURLUcode (*url_get)(const CURLU *url, CURLUPart part, char **text, unsigned flags);
        void (*free)(void *memory);
} lib;

static pthread_once_t lib_once = PTHREAD_ONCE_INIT;
static struct err lib_err; /* code 0: loaded */

static void lib_load(void)
{
        static const struct {
                const char *name;
                void **slot;
        } symbols[] = {
                { "curl_global_init", (void **)&lib.global_init },
                { "curl_easy_init", (void **)&lib.easy_init },
                { "curl_easy_cleanup", (void **)&lib.easy_cleanup },
                { "curl_easy_reset", (void **)&lib.easy_reset },
                { "curl_easy_setopt", (void **)&lib.easy_setopt },
                { "curl_easy_perform", (void **)&lib.easy_perform },
                { "curl_easy_getinfo", (void **)&lib.easy_getinfo },
                { "curl_easy_strerror", (void **)&lib.easy_strerror },
                { "curl_slist_append", (void **)&lib.slist_append },
                { "curl_slist_free_all", (void **)&lib.slist_free_all },
                { "curl_url", (void **)&lib.url },
                { "curl_url_cleanup", (void **)&lib.url_cleanup },
                { "curl_url_set", (void **)&lib.url_set },
                { "curl_url_get", (void **)&lib.url_get },
                { "curl_free", (void **)&lib.free },
        };
        void *handle = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
                err_plain(&lib_err, ENOPKG, "cannot load libcurl (%s); install libcurl4",
                          dlerror());
                return;
        }
        for (size_t i = 0; i < ELEMENTS(symbols); i++) {
                *symbols[i].slot = dlsym(handle, symbols[i].name);
                if (!*symbols[i].slot) {
                        err_plain(&lib_err, ENOPKG, "libcurl lacks %s", symbols[i].name);
                        return;
                }
        }
        CURLcode code = lib.global_init(CURL_GLOBAL_DEFAULT);
        if (code != CURLE_OK)
                err_plain(&lib_err, EIO, "start libcurl: %s", lib.easy_strerror(code));
}

struct fetcher {
        CURL *handle;
};

int fetcher_create(struct fetcher **ret, struct err *err)
{
        pthread_once(&lib_once, lib_load);
        if (lib_err.code)
                return err_plain(err, lib_err.code, "%s", err_text(&lib_err));
        CURL *handle = lib.easy_init();
        if (!handle)
                return err_set(err, ENOMEM, "create a transfer handle");
        struct fetcher *fetcher = new0(struct fetcher);
        fetcher->handle = handle;
        *ret = fetcher;
        return 0;
}

void fetcher_destroy(struct fetcher *fetcher)
{
        if (!fetcher)
                return;
        lib.easy_cleanup(fetcher->handle);
        free(fetcher);
}

/* One transfer under way. */
struct transfer {
        struct fetcher *fetcher;
        const struct fetch *fetch;
        struct fetch_result result;
        size_t head_bytes;
        bool head_told;
        struct buf body;
        bool enough; /* an error's body goes on and on; we cut it, that is no failure */
        uint64_t sent_bytes;
        int failed; /* -errno of a callback of ours, its story in `err` */
        struct err *err;
        char message[CURL_ERROR_SIZE];
};

static bool is_success(const struct transfer *transfer)
{
        return transfer->result.status / 100 == 2;
}

static bool is_cancelled(const struct transfer *transfer)
{
        const atomic_bool *cancel = transfer->fetch->cancel;
        return cancel && atomic_load_explicit(cancel, memory_order_relaxed);
}

/* --- the reply's head --- */

/* Absolute form of a URL reference. Returns heap, or NULL. */
static char *resolve(const char *base, const char *reference)
{
        CURLU *url = lib.url();
        char *text = NULL, *copy = NULL;
        if (lib.url_set(url, CURLUPART_URL, base, 0) == CURLUE_OK &&
            lib.url_set(url, CURLUPART_URL, reference, 0) == CURLUE_OK &&
            lib.url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK) {
                copy = xstrdup(text);
                lib.free(text);
        }
        lib.url_cleanup(url);
        return copy;
}

/* A partial reply must start where it was asked to. */
static int check_range(struct transfer *transfer)
{
        if (transfer->result.status != 206)
                return 0;
        const char *range = fetch_header(&transfer->result, "Content-Range");
        const char *digits = range ? str_after(range, "bytes ") : NULL;
        uint64_t start;
        auto_free char *number = digits ? xstrndup(digits, strspn(digits, "0123456789")) : NULL;
        if (!number || str_to_u64(number, &start) < 0 || start != transfer->fetch->resume_offset ||
            transfer->fetch->resume_offset == 0)
                return err_plain(
                        transfer->err, EPROTO,
                        "the server sent a part that was not asked for (Content-Range: %s)",
                        range ? range : "none");
        return 0;
}

static int head_complete(struct transfer *transfer)
{
        const struct fetch *fetch = transfer->fetch;
        long status = 0;
        lib.easy_getinfo(transfer->fetcher->handle, CURLINFO_RESPONSE_CODE, &status);
        transfer->result.status = (int)status;
        if (status / 100 == 1 || transfer->head_told)
                return 0; /* interim, or trailers */
        transfer->head_told = true;
        const char *location = fetch_header(&transfer->result, "Location");
        if (location)
                transfer->result.location = resolve(fetch->url, location);
        if (!is_success(transfer))
                return 0;
        int r = check_range(transfer);
        if (r == 0 && fetch->head)
                r = fetch->head(fetch->arg, &transfer->result, transfer->err);
        return r;
}

static size_t on_header(char *data, size_t one, size_t size, void *arg)
{
        struct transfer *transfer = arg;
        size_t length = size;
        while (length > 0 && (data[length - 1] == '\r' || data[length - 1] == '\n'))
                length--;
        if (length >= 5 && memcmp(data, "HTTP/", 5) == 0 && !memchr(data, ':', length)) {
                strv_free(take_ptr(transfer->result.headers)); /* of an interim reply */
                transfer->head_bytes = 0;
        } else if (length > 0) {
                transfer->head_bytes += length;
                if (transfer->head_bytes > FETCH_HEAD_LIMIT_BYTES)
                        transfer->failed = err_plain(transfer->err, EPROTO, "endless reply header");
                else if (memchr(data, ':', length) && !memchr(data, '\0', length))
                        strv_push_take(&transfer->result.headers, xstrndup(data, length));
        } else {
                transfer->failed = head_complete(transfer);
        }
        return transfer->failed < 0 ? 0 : size * one;
}

/* --- bodies --- */

static int take_error_body(struct transfer *transfer, const char *data, size_t size)
{
        size_t room = FETCH_ERROR_LIMIT_BYTES - transfer->body.size;
        buf_append(&transfer->body, data, size < room ? size : room);
        if (transfer->result.received_bytes > ERROR_DISCARD_LIMIT_BYTES) {
                transfer->enough = true;
                return -EFBIG;
        }
        return 0;
}

static int take_body(struct transfer *transfer, const char *data, size_t size)
{
        const struct fetch *fetch = transfer->fetch;
        uint64_t limit = fetch->size_limit;
        transfer->result.received_bytes += size;
        if (!is_success(transfer))
                return take_error_body(transfer, data, size);
        if (!limit && !fetch->write)
                limit = FETCH_BODY_LIMIT_BYTES;
        if (limit && transfer->result.received_bytes > limit)
                return err_plain(transfer->err, EFBIG, "the reply is larger than %" PRIu64 " bytes",
                                 limit);
        if (is_cancelled(transfer))
                return err_plain(transfer->err, ECANCELED, "cancelled");
        if (fetch->write)
                return fetch->write(fetch->arg, data, size, transfer->err);
        buf_append(&transfer->body, data, size);
        return 0;
}

static size_t on_data(char *data, size_t one, size_t size, void *arg)
{
        struct transfer *transfer = arg;
        int r = take_body(transfer, data, size);
        if (r < 0) {
                transfer->failed = r;
                return 0; /* `size` is never 0 here */
        }
        return size * one;
}

/* What to send. */
static size_t on_send(char *data, size_t one, size_t size, void *arg)
{
        struct transfer *transfer = arg;
        const struct fetch *fetch = transfer->fetch;
        uint64_t left = fetch->body_size - transfer->sent_bytes;
        size_t part = size * one < left ? size * one : (size_t)left;
        if (part == 0)
                return 0;
        if (fetch->body) {
                memcpy(data, (const char *)fetch->body + transfer->sent_bytes, part);
        } else {
                ssize_t got = pread(fetch->body_fd, data, part,
                                    (off_t)(fetch->body_offset + transfer->sent_bytes));
                if (got <= 0) {
                        transfer->failed = err_set(transfer->err, got < 0 ? errno : EIO,
                                                   "read the request body at %" PRIu64,
                                                   transfer->sent_bytes);
                        return CURL_READFUNC_ABORT;
                }
                part = (size_t)got;
        }
        transfer->sent_bytes += part;
        if (fetch->sent)
                fetch->sent(fetch->arg, transfer->sent_bytes);
        return part;
}

/* A connection that turned out stale makes libcurl send the body again. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
        struct transfer *transfer = arg;
        if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > transfer->fetch->body_size)
                return CURL_SEEKFUNC_CANTSEEK;
        transfer->sent_bytes = (uint64_t)offset;
        return CURL_SEEKFUNC_OK;
}

static int on_progress(void *arg, curl_off_t total __attribute__((unused)),
                       curl_off_t now __attribute__((unused)),
                       curl_off_t up_total __attribute__((unused)),
                       curl_off_t up_now __attribute__((unused)))
{
        struct transfer *transfer = arg;
        if (!is_cancelled(transfer))
                return 0;
        transfer->failed = err_plain(transfer->err, ECANCELED, "cancelled");
        return 1;
}

/* --- the request --- */

static long seconds(int64_t ns, int64_t otherwise_ns)
{
        int64_t s = ((ns > 0 ? ns : otherwise_ns) + NS_PER_S - 1) / NS_PER_S;
        return s > 0 ? (long)s : 1;
}

static void set_method(struct transfer *transfer, CURL *handle)
{
        const struct fetch *fetch = transfer->fetch;
        const char *method = fetch->method ? fetch->method : "GET";
        bool has_body = fetch->body || fetch->has_body_fd;
        if (streq(method, "HEAD")) {
                lib.easy_setopt(handle, CURLOPT_NOBODY, 1L);
                return;
        }
        if (streq(method, "GET") && !has_body)
                return;
        lib.easy_setopt(handle, CURLOPT_CUSTOMREQUEST, method);
        if (!has_body && streq(method, "DELETE"))
                return;
        lib.easy_setopt(handle, CURLOPT_UPLOAD, 1L);
        lib.easy_setopt(handle, CURLOPT_INFILESIZE_LARGE, (curl_off_t)fetch->body_size);
        lib.easy_setopt(handle, CURLOPT_UPLOAD_BUFFERSIZE, RECEIVE_SIZE_BYTES);
        lib.easy_setopt(handle, CURLOPT_READFUNCTION, on_send);
        lib.easy_setopt(handle, CURLOPT_READDATA, transfer);
        lib.easy_setopt(handle, CURLOPT_SEEKFUNCTION, on_seek);
        lib.easy_setopt(handle, CURLOPT_SEEKDATA, transfer);
}

static void set_tls(const struct fetch *fetch, CURL *handle)
{
        /* The directory of the system's certificates stays in force beside the file. */
        if (fetch->ca_file)
                lib.easy_setopt(handle, CURLOPT_CAINFO, fetch->ca_file);
        if (fetch->client_cert)
                lib.easy_setopt(handle, CURLOPT_SSLCERT, fetch->client_cert);
        if (fetch->client_key)
                lib.easy_setopt(handle, CURLOPT_SSLKEY, fetch->client_key);
        if (fetch->insecure_tls) {
                lib.easy_setopt(handle, CURLOPT_SSL_VERIFYPEER, 0L);
                lib.easy_setopt(handle, CURLOPT_SSL_VERIFYHOST, 0L);
        }
}

static void set_options(struct transfer *transfer, struct curl_slist *headers)
{
        const struct fetch *fetch = transfer->fetch;
        CURL *handle = transfer->fetcher->handle;
        lib.easy_reset(handle); /* keeps connections */
        lib.easy_setopt(handle, CURLOPT_URL, fetch->url);
        lib.easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
        lib.easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
        lib.easy_setopt(handle, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        lib.easy_setopt(handle, CURLOPT_USERAGENT, "isle/" ISLE_VERSION);
        lib.easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
        lib.easy_setopt(handle, CURLOPT_BUFFERSIZE, RECEIVE_SIZE_BYTES);
        lib.easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
        lib.easy_setopt(handle, CURLOPT_ERRORBUFFER, transfer->message);
        lib.easy_setopt(handle, CURLOPT_CONNECTTIMEOUT,
                        seconds(fetch->connect_timeout_ns, CONNECT_TIMEOUT_NS));
        lib.easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
        lib.easy_setopt(handle, CURLOPT_LOW_SPEED_TIME,
                        seconds(fetch->stall_timeout_ns, STALL_TIMEOUT_NS));
        lib.easy_setopt(handle, CURLOPT_HEADERFUNCTION, on_header);
        lib.easy_setopt(handle, CURLOPT_HEADERDATA, transfer);
        lib.easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_data);
        lib.easy_setopt(handle, CURLOPT_WRITEDATA, transfer);
        lib.easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
        lib.easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, on_progress);
        lib.easy_setopt(handle, CURLOPT_XFERINFODATA, transfer);
        set_method(transfer, handle);
        set_tls(fetch, handle);
}

static struct curl_slist *make_headers(const struct fetch *fetch)
{
        /* Waiting for "100 Continue" costs a second with servers that never say it. */
        struct curl_slist *list = lib.slist_append(NULL, "Expect:");
        for (char *const *header = fetch->headers; header && *header; header++)
                list = lib.slist_append(list, *header);
        if (fetch->resume_offset > 0) {
                auto_free char *range = xasprintf("Range: bytes=%" PRIu64 "-",
                                                  fetch->resume_offset);
                list = lib.slist_append(list, range);
        }
        return list;
}

/* --- the outcome --- */

/* What libcurl's failures mean to a caller. */
static const struct {
        CURLcode code;
        int error;
        bool transient;
} failures[] = {
        { CURLE_URL_MALFORMAT, EINVAL, false },
        { CURLE_UNSUPPORTED_PROTOCOL, EINVAL, false },
        { CURLE_COULDNT_RESOLVE_HOST, EHOSTUNREACH, true },
        { CURLE_COULDNT_RESOLVE_PROXY, EHOSTUNREACH, true },
        { CURLE_COULDNT_CONNECT, ECONNREFUSED, true },
        { CURLE_OPERATION_TIMEDOUT, ETIMEDOUT, true },
        { CURLE_PEER_FAILED_VERIFICATION, EPERM, false },
        { CURLE_SSL_CACERT_BADFILE, EPERM, false },
        { CURLE_SSL_CERTPROBLEM, EPERM, false },
        { CURLE_SSL_CONNECT_ERROR, EPROTO, true },
        { CURLE_PARTIAL_FILE, EPIPE, true },
        { CURLE_GOT_NOTHING, EPIPE, true },
        { CURLE_SEND_ERROR, EPIPE, true },
        { CURLE_RECV_ERROR, EPIPE, true },
        { CURLE_WEIRD_SERVER_REPLY, EPROTO, false },
        { CURLE_HTTP2, EPROTO, true },
        { CURLE_OUT_OF_MEMORY, ENOMEM, false },
};

/* "GET registry.example:5000": of the URL no more, it may carry credentials. */
static char *describe(const struct fetch *fetch)
{
        const char *host = strstr(fetch->url, "://");
        host = host ? host + 3 : fetch->url;
        size_t length = strcspn(host, "/?#");
        for (size_t i = length; i > 0; i--) {
                if (host[i - 1] != '@')
                        continue;
                host += i;
                length -= i;
                break;
        }
        return xasprintf("%s %.*s", fetch->method ? fetch->method : "GET", (int)length, host);
}

static int report_failure(struct transfer *transfer, CURLcode code, bool *ret_transient)
{
        struct err *err = transfer->err;
        auto_free char *what = describe(transfer->fetch);
        *ret_transient = false;
        if (transfer->failed < 0) {
                err_wrap(err, "%s", what);
                return transfer->failed;
        }
        int error = EIO;
        for (size_t i = 0; i < ELEMENTS(failures); i++) {
                if (failures[i].code == code) {
                        error = failures[i].error;
                        *ret_transient = failures[i].transient;
                }
        }
        return err_plain(err, error, "%s: %s", what,
                         transfer->message[0] ? transfer->message : lib.easy_strerror(code));
}

int fetch_perform(struct fetcher *fetcher, const struct fetch *fetch, struct fetch_result *ret,
                  struct err *err)
{
        struct err ignored = { 0 };
        struct transfer transfer = { .fetcher = fetcher,
                                     .fetch = fetch,
                                     .err = err ? err : &ignored };
        err_clear(transfer.err);
        for (char *const *header = fetch->headers; header && *header; header++)
                if (strpbrk(*header, "\r\n"))
                        return err_plain(err, EINVAL, "line break in request header '%.*s'",
                                         (int)strcspn(*header, ":"), *header);
        struct curl_slist *headers = make_headers(fetch);
        set_options(&transfer, headers);
        CURLcode code = lib.easy_perform(fetcher->handle);
        lib.easy_reset(fetcher->handle); /* forget pointers to this frame */
        lib.slist_free_all(headers);

        if (code != CURLE_OK && !transfer.enough) {
                bool transient;
                int r = report_failure(&transfer, code, &transient);
                fetch_result_finish(&transfer.result);
                buf_finish(&transfer.body);
                *ret = (struct fetch_result){ .transient = transient };
                return r;
        }
        transfer.result.body_size = transfer.body.size;
        transfer.result.body = buf_take(&transfer.body);
        *ret = transfer.result;
        return 0;
}

void fetch_result_finish(struct fetch_result *result)
{
        strv_free(result->headers);
        free(result->location);
        free(result->body);
        *result = (struct fetch_result){ 0 };
}

const char *fetch_header(const struct fetch_result *result, const char *name)
{
        size_t length = strlen(name);
        for (char **header = result->headers; header && *header; header++) {
                if (strncasecmp(*header, name, length) != 0 || (*header)[length] != ':')
                        continue;
                const char *value = *header + length + 1;
                return value + strspn(value, " \t");
        }
        return NULL;
}
