/* docker import: a tar becomes an image of one layer. */
#include "base/clock.h"
#include "base/file.h"
#include "image/archive.h"
#include "image/image_store.h"
#include "image/import_change.h"
#include "image/layer.h"
#include "oci/image_spec.h"
#include "oci/reference.h"

#define READ_SIZE (256u << 10)

struct importing {
        struct image_store *st;
        const struct image_import *how;
        struct lease lease;
        struct digest blob, diff_id, chain_id;
        uint64_t blob_size;
        enum compression compression;
};

/* The stream goes to the content store and to the unpacking pipeline at once. */
static int read_layer(struct importing *in, int fd, struct ingest *ingest,
                      struct layer_build *build, struct err *err)
{
        auto_free char *chunk = xmalloc(READ_SIZE);
        ssize_t n;
        while ((n = io_read_full(fd, chunk, READ_SIZE)) > 0) {
                if (in->how->cancel && atomic_load(in->how->cancel))
                        return err_plain(err, ECANCELED, "cancelled");
                if (in->blob_size == 0)
                        in->compression = compression_detect(chunk, (size_t)n);
                in->blob_size += (uint64_t)n;
                int r = ingest_write(ingest, chunk, (size_t)n, err);
                if (r == 0)
                        r = layer_build_write(build, chunk, (size_t)n, err);
                if (r < 0)
                        return r;
        }
        if (n < 0)
                return err_set(err, (int)-n, "read the archive");
        return layer_build_finish(build, &in->diff_id, err);
}

static int make_layer(struct importing *in, int fd, struct err *err)
{
        struct image_store *st = in->st;
        auto_ingest ingest = NULL;
        auto_layer_build build = NULL;
        int r = ingest_begin_new(st->content, UINT64_MAX, &ingest, err);
        if (r == 0)
                r = layer_build_begin(st, COMPRESSION_AUTO, 0, NULL, in->how->cancel, &build, err);
        if (r == 0)
                r = read_layer(in, fd, ingest, build, err);
        if (r == 0)
                r = archive_commit_blob(&in->lease, ingest, &in->blob, err);
        if (r < 0)
                return r;
        in->chain_id = in->diff_id;
        lease_add(&in->lease, NULL, &in->chain_id);
        r = lease_save(&in->lease, err);
        if (r < 0)
                return r;
        auto_free char *flight = xasprintf("layer %s", in->chain_id.text);
        r = flight_begin(&st->flights, flight, in->how->cancel, err);
        if (r < 0)
                return r;
        if (!layer_ready(st, &in->chain_id, NULL))
                r = layer_build_commit(build, &in->chain_id, NULL, 0, &in->blob, err);
        flight_end(&st->flights, flight);
        return r;
}

static int make_config(struct importing *in, char **ret_text, struct err *err)
{
        struct oci_image_config config = { 0 };
        struct oci_platform platform = { 0 };
        char now[CLOCK_TEXT_SIZE];
        const char *wanted = in->how->platform ? in->how->platform : in->st->default_platform;
        clock_format(clock_realtime_ns(), now);
        int r = 0;
        if (wanted)
                r = oci_platform_parse(wanted, &platform, err);
        else
                oci_platform_host(&platform);
        if (r < 0)
                return r;
        config.created = xstrdup(now);
        config.architecture = platform.architecture ? xstrdup(platform.architecture) : NULL;
        config.os = platform.os ? xstrdup(platform.os) : NULL;
        config.variant = platform.variant ? xstrdup(platform.variant) : NULL;
        config.rootfs.type = xstrdup("layers");
        strv_push(&config.rootfs.diff_ids, in->diff_id.text);
        config.history = new0(struct oci_history);
        config.history_length = 1;
        config.history->created = xstrdup(now);
        config.history->comment = xstrdup(in->how->message ? in->how->message : "Imported from -");
        for (char *const *change = in->how->changes; r == 0 && change && *change; change++)
                r = import_change(&config.config, *change, err);
        if (r == 0)
                *ret_text = json_encode_text(&oci_image_config_shape, &config, false);
        oci_platform_finish(&platform);
        oci_image_config_finish(&config);
        return r;
}

static int import_all(struct importing *in, int fd, struct image **ret, struct err *err)
{
        auto_free char *config = NULL;
        auto_strv names = NULL;
        auto_reference reference = { 0 };
        int r = 0;
        if (!str_empty(in->how->reference)) {
                r = oci_reference_parse(in->how->reference, &reference, err);
                if (r < 0)
                        return r;
                auto_free char *name = oci_reference_name(&reference);
                strv_push_take(&names, xasprintf("%s:%s", name, reference.tag));
        }
        /* A bad --change is told before the tar is read. */
        struct oci_execution scratch = { 0 };
        for (char *const *change = in->how->changes; r == 0 && change && *change; change++)
                r = import_change(&scratch, *change, err);
        json_free(&oci_execution_shape, &scratch);
        if (r == 0)
                r = make_layer(in, fd, err);
        if (r == 0)
                r = make_config(in, &config, err);
        if (r < 0)
                return r;
        struct archive_image made = { .config = config,
                                      .config_size = strlen(config),
                                      .layers = &in->blob,
                                      .layers_length = 1,
                                      .names = names };
        return archive_commit_image(&in->lease, &made, ret, err);
}

int image_import(struct image_store *st, int in_fd, const struct image_import *how,
                 struct image **ret, struct err *err)
{
        struct importing in = { .st = st, .how = how };
        auto_image image = NULL;
        int r = lease_begin(st, "import", &in.lease, err);
        if (r < 0)
                return r;
        r = import_all(&in, in_fd, &image, err);
        lease_end(&in.lease, true);
        if (r < 0) {
                image_gc(st, NULL, NULL);
                return err_wrap(err, "import"), r;
        }
        if (ret)
                *ret = take_ptr(image);
        return 0;
}
