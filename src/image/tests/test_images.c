/* Names, removal, garbage, crashes and power losses. */
#include "image/tests/fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "image/durable.h"
#include "image/layer.h"
#include "image/snapshot.h"

static struct layer *make_layer(const char *path, const char *text)
{
        struct layer *layer = new0(struct layer);
        layer_begin(layer);
        layer_file(layer, path, 0644, text);
        layer_end(layer);
        return layer;
}

static void drop_layer(struct layer *layer)
{
        layer_free(layer);
        free(layer);
}

/* base:1 is layer A; app:1 is A and B. */
struct two {
        struct layer *layers[2];
        struct image *base, *app;
};

static struct two load_two(struct fixture *f)
{
        struct two two = { .layers = { make_layer("a", "alpha"), make_layer("b", "beta") } };
        two.base = fixture_load(f, "base:1", two.layers, 1, "base");
        two.app = fixture_load(f, "app:1", two.layers, 2, "app");
        return two;
}

static void drop_two(struct two *two)
{
        image_unref(two->base);
        image_unref(two->app);
        drop_layer(two->layers[0]);
        drop_layer(two->layers[1]);
}

static char *removal_text(const struct image_removal *removal)
{
        auto_buf text = { 0 };
        for (size_t i = 0; i < removal->length; i++)
                buf_printf(&text, "%s:%.12s ", removal->items[i].untagged ? "Untagged" : "Deleted",
                           removal->items[i].name);
        return buf_take(&text);
}

static int rmi(struct fixture *f, const char *name, bool force, const struct image_use *use,
               char **ret_text, struct err *err)
{
        struct image_removal removal = { 0 };
        int r = image_remove(f->st, name, force, use, use ? 1 : 0, &removal, err);
        if (ret_text)
                *ret_text = removal_text(&removal);
        image_removal_finish(&removal);
        return r;
}

static void assert_loaded(struct fixture *f, const char *name, bool expected)
{
        auto_image image = NULL;
        assert_int_equal(image_resolve(f->st, name, &image, NULL), expected ? 0 : -ENOENT);
}

/* ---- names ------------------------------------------------------------- */

static void test_layers_are_shared(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        assert_int_equal(fixture_count(f, "layers"), 2);
        assert_int_equal(fixture_count(f, "l"), 2);
        assert_true(digest_equal(&two.base->chain_ids[0], &two.app->chain_ids[0]));
        assert_int_equal(two.app->size_bytes, 9);
        assert_int_equal(two.app->layer_sizes_bytes[1], 4);
        uint64_t shared;
        assert_return_code(image_shared_size(f->st, two.app, &shared, NULL), 0);
        assert_int_equal(shared, 5);
        assert_int_equal(fixture_count(f, "staging"), 0);
        assert_int_equal(fixture_count(f, "content/ingest"), 0);
        drop_two(&two);
}

static void test_resolve(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        const char *hex = digest_hex(&two.app->id);
        char prefix[13];
        snprintf(prefix, sizeof(prefix), "%.12s", hex);
        const char *const names[] = {
                "app:1", "docker.io/library/app:1", "index.docker.io/app:1", two.app->id.text, hex,
                prefix
        };
        for (size_t i = 0; i < ELEMENTS(names); i++) {
                auto_image image = NULL;
                if (image_resolve(f->st, names[i], &image, NULL) < 0)
                        fail_msg("%s", names[i]);
                assert_true(digest_equal(&image->id, &two.app->id));
        }
        struct err err = { 0 };
        auto_image image = NULL;
        assert_int_equal(image_resolve(f->st, "app:2", &image, &err), -ENOENT);
        assert_string_equal(err_text(&err), "No such image: app:2");
        assert_int_equal(image_resolve(f->st, "No/Such", &image, &err), -ENOENT);
        assert_int_equal(image_resolve(f->st, "", &image, &err), -ENOENT);
        drop_two(&two);
}

static void test_ambiguous_prefix(void **state)
{
        struct fixture *f = *state;
        struct layer *layer = make_layer("x", "x");
        struct image *images[17];
        for (int i = 0; i < 17; i++) {
                char name[16];
                snprintf(name, sizeof(name), "img:%d", i);
                images[i] = fixture_load(f, name, &layer, 1, name);
        }
        /* Of 17 ids two begin with the same digit. */
        bool ambiguous = false;
        for (int digit = 0; digit < 16; digit++) {
                char prefix[2];
                auto_image image = NULL;
                struct err err = { 0 };
                snprintf(prefix, sizeof(prefix), "%x", digit);
                int r = image_resolve(f->st, prefix, &image, &err);
                ambiguous = ambiguous || (r == -EINVAL && strstr(err_text(&err), "ambiguous"));
        }
        assert_true(ambiguous);
        for (int i = 0; i < 17; i++)
                image_unref(images[i]);
        drop_layer(layer);
}

static void test_tag_and_list(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct err err = { 0 };
        assert_return_code(image_tag(f->st, "app:1", "localhost:5000/team/app:stable", &err), 0);
        assert_int_equal(image_tag(f->st, "nothing", "x", &err), -ENOENT);
        assert_int_equal(image_tag(f->st, "app:1", "Bad Name", &err), -EINVAL);
        auto_image image = NULL;
        assert_return_code(image_resolve(f->st, "localhost:5000/team/app:stable", &image, &err), 0);
        assert_int_equal(strv_length(image->repo_tags), 2);

        static const struct {
                const char *reference, *label;
                int dangling;
                size_t expected;
        } filters[] = {
                { NULL, NULL, -1, 2 },       { "app", NULL, -1, 1 },
                { "app:*", NULL, -1, 1 },    { "*", NULL, -1, 2 },
                { "*:1", NULL, -1, 2 },      { "localhost:5000/*/*", NULL, -1, 1 },
                { "nope", NULL, -1, 0 },     { NULL, "mark", -1, 2 },
                { NULL, "mark=app", -1, 1 }, { NULL, "mark=x", -1, 0 },
                { NULL, NULL, 1, 0 },        { NULL, NULL, 0, 2 },
        };
        for (size_t i = 0; i < ELEMENTS(filters); i++) {
                char *references[] = { (char *)filters[i].reference, NULL };
                char *labels[] = { (char *)filters[i].label, NULL };
                struct image_filter filter = { .references = references,
                                               .labels = labels,
                                               .dangling = filters[i].dangling };
                struct image **list;
                size_t length;
                assert_return_code(image_list(f->st, &filter, &list, &length, &err), 0);
                if (length != filters[i].expected)
                        fail_msg("filter %zu: %zu", i, length);
                image_list_free(list, length);
        }
        drop_two(&two);
}

static void test_history(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct image_history_entry *entries;
        size_t length;
        assert_return_code(image_history(f->st, "app:1", &entries, &length, NULL), 0);
        assert_int_equal(length, 2);
        assert_string_equal(entries[0].id, two.app->id.text);
        assert_string_equal(entries[0].created_by, "step 1");
        assert_int_equal(entries[0].size_bytes, 4);
        assert_string_equal(entries[0].tags[0], "app:1");
        assert_string_equal(entries[1].id, "<missing>");
        assert_int_equal(entries[1].size_bytes, 5);
        image_history_free(entries, length);
        drop_two(&two);
}

/* The name moves; the old image stays, dangling. */
static void test_name_moves(void **state)
{
        struct fixture *f = *state;
        struct layer *layer = make_layer("x", "x");
        struct image *first = fixture_load(f, "img:1", &layer, 1, "first");
        struct image *second = fixture_load(f, "img:1", &layer, 1, "second");
        struct image_filter filter = { .dangling = 1 };
        struct image **list;
        size_t length;
        assert_false(digest_equal(&first->id, &second->id));
        assert_return_code(image_list(f->st, &filter, &list, &length, NULL), 0);
        assert_int_equal(length, 1);
        assert_true(digest_equal(&list[0]->id, &first->id));
        image_list_free(list, length);
        struct image_removal removal = { 0 };
        assert_return_code(image_prune(f->st, true, NULL, NULL, 0, &removal, NULL), 0);
        assert_int_equal(removal.length, 1);
        assert_string_equal(removal.items[0].name, first->id.text);
        image_removal_finish(&removal);
        assert_loaded(f, "img:1", true);
        assert_int_equal(fixture_count(f, "layers"), 1);
        image_unref(first);
        image_unref(second);
        drop_layer(layer);
}

/* ---- removal ----------------------------------------------------------- */

static void test_remove(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        auto_free char *text = NULL;
        assert_return_code(rmi(f, "app:1", false, NULL, &text, NULL), 0);
        auto_free char *expected = xasprintf("Untagged:app:1 Deleted:%.12s Deleted:%.12s ",
                                             two.app->id.text, two.app->chain_ids[1].text);
        assert_string_equal(text, expected);
        assert_loaded(f, "app:1", false);
        assert_loaded(f, "base:1", true);
        assert_int_equal(fixture_count(f, "layers"), 1);
        assert_int_equal(fixture_count(f, "l"), 1);
        assert_int_equal(rmi(f, "app:1", false, NULL, NULL, NULL), -ENOENT);
        assert_return_code(rmi(f, two.base->id.text, false, NULL, NULL, NULL), 0);
        assert_int_equal(fixture_count(f, "layers"), 0);
        assert_int_equal(fixture_count(f, "content/blobs/sha256"), 0);
        assert_int_equal(fixture_count(f, "staging"), 0);
        drop_two(&two);
}

static void test_remove_tagged_twice(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct err err = { 0 };
        auto_free char *text = NULL;
        assert_return_code(image_tag(f->st, "app:1", "other:2", NULL), 0);
        assert_int_equal(rmi(f, two.app->id.text, false, NULL, NULL, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), "(must be forced) - image is referenced in multiple "
                                               "repositories"));
        assert_return_code(rmi(f, "app:1", false, NULL, &text, NULL), 0);
        assert_string_equal(text, "Untagged:app:1 ");
        assert_loaded(f, "other:2", true);
        assert_return_code(image_tag(f->st, "other:2", "third:3", NULL), 0);
        assert_return_code(rmi(f, two.app->id.text, true, NULL, NULL, NULL), 0);
        assert_loaded(f, "other:2", false);
        assert_loaded(f, "third:3", false);
        drop_two(&two);
}

static void test_remove_used(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct err err = { 0 };
        struct image_use use = { .image_id = two.app->id.text, .instance_id = "0123456789abcdef" };
        assert_int_equal(rmi(f, "app:1", false, &use, NULL, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), "unable to remove repository reference \"app:1\" "
                                               "(must force) - container 0123456789ab is using"));
        assert_int_equal(rmi(f, two.app->id.text, false, &use, NULL, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), "(must be forced) - image is being used by stopped "
                                               "container 0123456789ab"));
        use.running = true;
        assert_int_equal(rmi(f, two.app->id.text, true, &use, NULL, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), "(cannot be forced) - image is being used by "
                                               "running container 0123456789ab"));
        assert_loaded(f, "app:1", true);
        /* By name and force: the name goes, the image stays. */
        assert_return_code(rmi(f, "app:1", true, &use, NULL, &err), 0);
        assert_loaded(f, "app:1", false);
        assert_loaded(f, two.app->id.text, true);
        use.running = false;
        assert_return_code(rmi(f, two.app->id.text, true, &use, NULL, &err), 0);
        assert_loaded(f, two.app->id.text, false);
        drop_two(&two);
}

static void test_prune_all_but_used(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct image_use use = { .image_id = two.base->id.text, .instance_id = "1" };
        struct image_removal removal = { 0 };
        assert_return_code(image_prune(f->st, true, NULL, &use, 1, &removal, NULL), 0);
        assert_int_equal(removal.length, 0);
        assert_return_code(image_prune(f->st, false, NULL, &use, 1, &removal, NULL), 0);
        assert_int_equal(removal.length, 3);
        assert_true(removal.reclaimed_bytes > 0);
        image_removal_finish(&removal);
        assert_loaded(f, "base:1", true);
        assert_loaded(f, "app:1", false);
        drop_two(&two);
}

/* ---- garbage and leases ------------------------------------------------ */

static void test_lease_protects(void **state)
{
        struct fixture *f = *state;
        struct digest digest;
        struct lease lease = { 0 };
        struct image_gc_result result;
        digest_bytes("hello", 5, &digest);
        assert_return_code(lease_begin(f->st, "pull x", &lease, NULL), 0);
        lease_add(&lease, &digest, NULL);
        assert_return_code(lease_save(&lease, NULL), 0);
        assert_return_code(content_write(f->st->content, &digest, "hello", 5, NULL), 0);
        assert_return_code(image_gc(f->st, &result, NULL), 0);
        assert_int_equal(result.blobs, 0);

        /* Interrupted: kept for the next attempt, also across a restart. */
        lease_end(&lease, false);
        fixture_reopen(f, NULL);
        assert_return_code(image_gc(f->st, &result, NULL), 0);
        assert_int_equal(result.blobs, 0);
        assert_return_code(lease_begin(f->st, "pull x", &lease, NULL), 0);
        lease_end(&lease, true);
        assert_return_code(image_gc(f->st, &result, NULL), 0);
        assert_int_equal(result.blobs, 1);
        assert_int_equal(result.bytes, 5);
}

static void test_lease_of_the_dead_expires(void **state)
{
        struct fixture *f = *state;
        struct digest digest;
        struct lease lease = { 0 };
        struct image_gc_result result;
        struct image_settings short_lease = { .lease_ttl_ns = 1, .no_durability_thread = true };
        digest_bytes("hello", 5, &digest);
        assert_return_code(lease_begin(f->st, "pull x", &lease, NULL), 0);
        lease_add(&lease, &digest, NULL);
        assert_return_code(lease_save(&lease, NULL), 0);
        struct ingest *ingest = NULL;
        uint64_t offset;
        assert_return_code(ingest_begin(f->st->content, &digest, 5, &ingest, &offset, NULL), 0);
        assert_return_code(ingest_write(ingest, "he", 2, NULL), 0);
        ingest_destroy(ingest);
        free(lease.name); /* killed */
        json_free(&lease_record_shape, &lease.record);
        fixture_reopen(f, NULL);
        assert_return_code(image_gc(f->st, &result, NULL), 0);
        assert_int_equal(result.partials, 0); /* its time runs from the restart */
        assert_return_code(lease_begin(f->st, "pull x", &lease, NULL), 0);
        lease_add(&lease, &digest, NULL);
        f->st->lease_ttl_ns = short_lease.lease_ttl_ns;
        lease_end(&lease, false);
        assert_return_code(image_gc(f->st, &result, NULL), 0);
        assert_int_equal(result.partials, 1);
        assert_int_equal(fixture_count(f, "content/ingest"), 0);
}

/* A crash between rename and record leaves a directory that nobody sees. */
static void test_half_a_layer(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        auto_free char *hex = xasprintf("layers/%064d", 7);
        auto_free char *stray = fixture_path(f, hex);
        auto_free char *staging = fixture_path(f, "staging/0123456789abcdef/fs/x");
        auto_free char *link = fixture_path(f, "l/000000000000");
        assert_return_code(file_make_dirs(AT_FDCWD, stray, 0755, NULL), 0);
        assert_return_code(file_make_dirs(AT_FDCWD, staging, 0755, NULL), 0);
        assert_return_code(symlink("../layers/x", link), 0);
        fixture_reopen(f, NULL);
        assert_int_equal(fixture_count(f, "layers"), 2);
        assert_int_equal(fixture_count(f, "l"), 2);
        assert_int_equal(fixture_count(f, "staging"), 0);
        assert_loaded(f, "app:1", true);
        drop_two(&two);
}

/* ---- power ------------------------------------------------------------- */

static void pretend_other_boot(struct fixture *f)
{
        struct store_value *values;
        size_t length;
        assert_return_code(store_list(f->store, "image/", &values, &length, NULL, NULL), 0);
        for (size_t i = 0; i < length; i++) {
                char *at = strstr(values[i].data, f->st->boot_id);
                if (!at)
                        continue;
                memset(at, '0', 8);
                assert_return_code(
                        store_put(f->store, values[i].key, values[i].data, values[i].size, NULL),
                        0);
        }
        store_values_free(values, length);
}

static char notices[512];

static void take_notice(void *arg, const char *text)
{
        (void)arg;
        strncat(notices, text, sizeof(notices) - strlen(notices) - 1);
}

static void test_power_loss_before_sync(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        pretend_other_boot(f);
        fixture_reopen(f, NULL);
        assert_int_equal(fixture_count(f, "layers"), 0);
        assert_loaded(f, "app:1", true);
        /* The blobs are good: using the image unpacks it again. */
        auto_snapshot snapshot = { 0 };
        assert_return_code(snapshot_prepare(f->st, "i1", two.app, &snapshot, NULL), 0);
        assert_int_equal(fixture_count(f, "layers"), 2);
        drop_two(&two);
}

static void test_power_loss_after_sync(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        assert_return_code(durable_sync(f->st, NULL), 0);
        pretend_other_boot(f);
        fixture_reopen(f, NULL);
        assert_int_equal(fixture_count(f, "layers"), 2);
        drop_two(&two);
}

static void test_power_loss_of_blobs(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct image_settings settings = { .no_durability_thread = true, .notice = take_notice };
        auto_free char *relative = xasprintf("content/blobs/sha256/%s", digest_hex(&two.app->id));
        auto_free char *path = fixture_path(f, relative);
        assert_return_code(file_replace(AT_FDCWD, path, "", 0, 0644, false, NULL), 0);
        pretend_other_boot(f);
        notices[0] = '\0';
        fixture_reopen(f, &settings);
        assert_loaded(f, "app:1", false);
        assert_loaded(f, "base:1", true);
        assert_non_null(strstr(notices, "lost in a power failure; pull it again"));
        drop_two(&two);
}

static void ignore_check(void *arg, const struct image_check *check)
{
        if (!check->good)
                strncat(arg, check->kind, 64);
}

static void test_verify(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        char bad[128] = "";
        assert_int_equal(image_verify(f->st, NULL, ignore_check, bad, NULL), 0);
        struct digest blob;
        digest_bytes(two.layers[1]->bytes.data, two.layers[1]->bytes.size, &blob);
        auto_free char *relative = xasprintf("content/blobs/sha256/%s", digest_hex(&blob));
        auto_free char *path = fixture_path(f, relative);
        assert_return_code(file_replace(AT_FDCWD, path, "rotten", 6, 0644, false, NULL), 0);
        assert_int_equal(image_verify(f->st, "base:1", ignore_check, bad, NULL), 0);
        assert_int_equal(image_verify(f->st, "app:1", ignore_check, bad, NULL), 1);
        assert_string_equal(bad, "layer blob");
        assert_int_equal(image_verify(f->st, "none", NULL, NULL, NULL), -ENOENT);
        drop_two(&two);
}

static void test_damaged_record(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct err err = { 0 };
        auto_free char *key = xasprintf("image/record/%s", digest_hex(&two.app->id));
        assert_return_code(store_put(f->store, key, "{\"id\":3}", 8, NULL), 0);
        auto_image image = NULL;
        assert_int_equal(image_resolve(f->st, "app:1", &image, &err), -EUCLEAN);
        assert_non_null(strstr(err_text(&err), "cannot be read"));
        /* Nothing may be collected while it is unknown what the record held. */
        assert_int_equal(image_gc(f->st, NULL, &err), -EUCLEAN);
        assert_int_equal(fixture_count(f, "layers"), 2);
        assert_loaded(f, "base:1", true);
        drop_two(&two);
}

static void test_opened_twice(void **state)
{
        struct fixture *f = *state;
        struct image_store *second = NULL;
        struct err err = { 0 };
        auto_free char *root = fixture_path(f, "");
        assert_int_equal(image_store_open(root, f->store, NULL, &second, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), "in use"));
}

static void test_usage(void **state)
{
        struct fixture *f = *state;
        struct two two = load_two(f);
        struct image_use use = { .image_id = two.base->id.text, .instance_id = "1" };
        struct image_disk_usage usage;
        assert_return_code(image_usage(f->st, &use, 1, &usage, NULL), 0);
        assert_int_equal(usage.images_length, 2);
        assert_int_equal(usage.active_length, 1);
        assert_int_equal(usage.layers_bytes, 9);
        assert_int_equal(usage.reclaimable_bytes, 4);
        assert_true(usage.blobs_bytes > 2048);
        drop_two(&two);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_begin, fixture_finish)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_layers_are_shared),
                TEST(test_resolve),
                TEST(test_ambiguous_prefix),
                TEST(test_tag_and_list),
                TEST(test_history),
                TEST(test_name_moves),
                TEST(test_remove),
                TEST(test_remove_tagged_twice),
                TEST(test_remove_used),
                TEST(test_prune_all_but_used),
                TEST(test_lease_protects),
                TEST(test_lease_of_the_dead_expires),
                TEST(test_half_a_layer),
                TEST(test_power_loss_before_sync),
                TEST(test_power_loss_after_sync),
                TEST(test_power_loss_of_blobs),
                TEST(test_verify),
                TEST(test_damaged_record),
                TEST(test_opened_twice),
                TEST(test_usage),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
