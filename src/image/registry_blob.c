/* Blobs: download, existence, cross-repository mount, upload. */
#include <inttypes.h>
#include <unistd.h>

#include "base/clock.h"
#include "image/registry_internal.h"

#define MONOLITHIC_MAX ((uint64_t)64 << 20)
#define CHUNK_SIZE     ((uint64_t)16 << 20)

int registry_get_blob(struct registry *registry, const struct digest *digest, uint64_t size_bytes,
                      uint64_t offset,
                      int (*sink)(void *arg, const void *data, size_t size, struct err *err),
                      void *arg, struct err *err)
{
        if (offset >= size_bytes && size_bytes > 0)
                return 0; /* nothing is missing; a range would not be satisfiable */
        auto_free char *path = xasprintf("/v2/%s/blobs/%s", registry->repository, digest->text);
        struct registry_request request = {
                .path = path, .sink = sink, .arg = arg, .offset = offset
        };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r < 0)
                return err_wrap(err, "download %s", digest->text), r;
        if (result.status / 100 != 2)
                r = registry_status_error(registry, &result, digest->text, err);
        fetch_result_finish(&result);
        return r;
}

int registry_has_blob(struct registry *registry, const struct digest *digest, struct err *err)
{
        auto_free char *path = xasprintf("/v2/%s/blobs/%s", registry->repository, digest->text);
        struct registry_request request = { .method = "HEAD", .path = path };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r < 0)
                return r;
        int status = result.status;
        if (status / 100 != 2 && status != 404)
                r = registry_status_error(registry, &result, digest->text, err);
        fetch_result_finish(&result);
        return r < 0 ? r : status / 100 == 2;
}

/* POST …/uploads/: the upload's URL (heap), or NULL where `mount` was granted. */
static int begin_upload(struct registry *registry, const char *query, char **ret_url,
                        struct err *err)
{
        auto_free char *path = xasprintf("/v2/%s/blobs/uploads/%s", registry->repository, query);
        struct registry_request request = { .method = "POST", .path = path, .body = "" };
        struct fetch_result result = { 0 };
        int r = registry_perform(registry, &request, &result, err);
        if (r < 0)
                return r;
        if (result.status == 201 && *query)
                *ret_url = NULL;
        else if (result.status == 202 && result.location)
                *ret_url = take_ptr(result.location);
        else if (result.status / 100 == 2)
                r = err_plain(err, EPROTO, "registry %s answers %d to the start of an upload",
                              registry->host, result.status);
        else
                r = registry_status_error(registry, &result, "push", err);
        fetch_result_finish(&result);
        return r;
}

static void cancel_upload(struct registry *registry, const char *url)
{
        struct registry_request request = { .method = "DELETE", .url = url, .once = true };
        struct fetch_result result = { 0 };
        if (registry_perform(registry, &request, &result, NULL) == 0)
                fetch_result_finish(&result);
}

int registry_mount_blob(struct registry *registry, const struct digest *digest,
                        const char *from_repository, struct err *err)
{
        pthread_mutex_lock(&registry->mutex);
        if (!streq(registry->mount_source, from_repository)) {
                free(registry->mount_source);
                registry->mount_source = xstrdup(from_repository);
                /* A token that was given for our repository alone does not do. */
                if (registry->authorization && str_starts(registry->authorization, "Bearer "))
                        free(take_ptr(registry->authorization));
        }
        pthread_mutex_unlock(&registry->mutex);
        auto_free char *escaped = registry_query_escape(digest->text);
        auto_free char *from = registry_query_escape(from_repository);
        auto_free char *query = xasprintf("?mount=%s&from=%s", escaped, from);
        auto_free char *url = NULL;
        int r = begin_upload(registry, query, &url, err);
        if (r == -EACCES || r == -ENOENT)
                return 0; /* not ours to read: upload instead */
        if (r < 0)
                return r;
        if (!url)
                return 1;
        cancel_upload(registry, url);
        return 0;
}

/* ---- upload ------------------------------------------------------------ */

struct upload {
        struct registry *registry;
        const struct digest *digest;
        int fd;
        uint64_t size, done;
        void (*sent)(void *arg, uint64_t sent_bytes);
        void *arg;
        char *url;
};

static void upload_sent(void *arg, uint64_t sent_bytes)
{
        struct upload *upload = arg;
        if (upload->sent)
                upload->sent(upload->arg, upload->done + sent_bytes);
}

/* PUT with the digest ends the upload; `size` bytes of body go with it. */
static int finish_upload(struct upload *upload, uint64_t size, bool *ret_transient, struct err *err)
{
        auto_free char *escaped = registry_query_escape(upload->digest->text);
        auto_free char *url = xasprintf("%s%sdigest=%s", upload->url,
                                        strchr(upload->url, '?') ? "&" : "?", escaped);
        char *headers[] = { "Content-Type: application/octet-stream", NULL };
        struct registry_request request = {
                .method = "PUT",
                .url = url,
                .headers = headers,
                .body_fd = upload->fd,
                .has_body_fd = true,
                .body_offset = upload->done,
                .body_size = size,
                .sent = upload_sent,
                .arg = upload,
                .once = true,
        };
        struct fetch_result result = { 0 };
        int r = registry_perform(upload->registry, &request, &result, err);
        *ret_transient = r < 0 ? result.transient
                               : result.status >= 500 || result.status == 404 ||
                                         result.status == 416;
        if (r == 0 && result.status / 100 != 2)
                r = registry_status_error(upload->registry, &result, "push", err);
        fetch_result_finish(&result);
        return r;
}

static int send_chunk(struct upload *upload, uint64_t size, bool *ret_transient, struct err *err)
{
        auto_free char *range = xasprintf("Content-Range: %" PRIu64 "-%" PRIu64, upload->done,
                                          upload->done + size - 1);
        char *headers[] = { "Content-Type: application/octet-stream", range, NULL };
        struct registry_request request = {
                .method = "PATCH",
                .url = upload->url,
                .headers = headers,
                .body_fd = upload->fd,
                .has_body_fd = true,
                .body_offset = upload->done,
                .body_size = size,
                .sent = upload_sent,
                .arg = upload,
                .once = true,
        };
        struct fetch_result result = { 0 };
        int r = registry_perform(upload->registry, &request, &result, err);
        *ret_transient = r < 0 ? result.transient
                               : result.status >= 500 || result.status == 404 ||
                                         result.status == 416;
        if (r == 0 && result.status / 100 != 2) {
                r = registry_status_error(upload->registry, &result, "push", err);
        } else if (r == 0) {
                const char *header = fetch_header(&result, "Range");
                uint64_t have = upload->done + size;
                if (header && registry_range_parse(header, &have) < 0)
                        r = err_plain(err, EPROTO, "registry %s answers 'Range: %.100s'",
                                      upload->registry->host, header);
                else if (have <= upload->done || have > upload->done + size)
                        r = err_plain(err, EPROTO, "registry %s did not take what was sent",
                                      upload->registry->host);
                else
                        upload->done = have;
                if (r == 0 && result.location) {
                        free(upload->url);
                        upload->url = take_ptr(result.location);
                }
        }
        fetch_result_finish(&result);
        return r;
}

static int upload_once(struct upload *upload, bool *ret_transient, struct err *err)
{
        *ret_transient = false;
        int r = 0;
        if (upload->size > MONOLITHIC_MAX) {
                while (r == 0 && upload->done < upload->size) {
                        uint64_t left = upload->size - upload->done;
                        r = send_chunk(upload, left < CHUNK_SIZE ? left : CHUNK_SIZE, ret_transient,
                                       err);
                }
        }
        return r < 0 ? r : finish_upload(upload, upload->size - upload->done, ret_transient, err);
}

/* Where a broken upload stands; 0 where the registry forgot it. */
static uint64_t ask_progress(struct upload *upload)
{
        struct registry_request request = { .url = upload->url, .once = true };
        struct fetch_result result = { 0 };
        uint64_t have = 0;
        if (registry_perform(upload->registry, &request, &result, NULL) < 0)
                return 0;
        const char *range = fetch_header(&result, "Range");
        if (result.status / 100 != 2 || !range || registry_range_parse(range, &have) < 0 ||
            have > upload->size)
                have = 0;
        if (have > 0 && result.location) {
                free(upload->url);
                upload->url = take_ptr(result.location);
        }
        fetch_result_finish(&result);
        return have;
}

int registry_put_blob(struct registry *registry, const struct digest *digest, int fd,
                      uint64_t size_bytes, void (*sent)(void *arg, uint64_t sent_bytes), void *arg,
                      struct err *err)
{
        struct upload upload = { .registry = registry,
                                 .digest = digest,
                                 .fd = fd,
                                 .size = size_bytes,
                                 .sent = sent,
                                 .arg = arg };
        int r = 0;
        for (unsigned tried = 1;; tried++) {
                bool transient = false;
                if (!upload.url) {
                        upload.done = 0;
                        r = begin_upload(registry, "", &upload.url, err);
                        if (r < 0)
                                break;
                }
                uint64_t before = upload.done;
                r = upload_once(&upload, &transient, err);
                if (r == 0 || !transient || tried >= registry->pool->attempts)
                        break;
                if (upload.done > before)
                        tried = 1;
                int waited = registry_backoff(registry, tried, 0, err);
                if (waited < 0) {
                        r = waited;
                        break;
                }
                upload.done = ask_progress(&upload);
                if (upload.done == 0)
                        free(take_ptr(upload.url));
        }
        if (r < 0 && upload.url)
                cancel_upload(registry, upload.url);
        free(upload.url);
        return r;
}
