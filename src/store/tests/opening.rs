//! Files that are damaged, of another version, or not to be had when the store begins.

use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::report::Chain;

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_and_a_new_one_begun() {
    let (_folder, path) = folder();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "this is no database, whatever it is called".repeat(100)).unwrap();
    let begun = u64::try_from(clock::wall().0).unwrap();
    let store = start(settings(&path));
    let seq = store.keeper.recovered.seq;
    assert!(seq >= begun, "numbers that clients have seen never come again: {seq}");
    assert_eq!(store.keeper.recovered, Recovered { seq, ..Recovered::default() });
    assert_eq!(set_aside(&path).len(), 1);
    store.end();
    assert_eq!(start(settings(&path)).keeper.recovered.seq, seq, "also when nothing came meanwhile");
}

#[tokio::test]
async fn only_the_damaged_file_that_was_set_aside_last_is_kept() {
    let (_folder, path) = folder();
    let folder = path.parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(&path, "this is no database, whatever it is called".repeat(100)).unwrap();
    for name in ["history.db.damaged-12", "history.db.damaged-12-wal", "other.db.damaged-12"] {
        fs::write(folder.join(name), "").unwrap();
    }
    start(settings(&path)).end();
    let mut left = set_aside(&path);
    left.retain(|file| *file != folder.join("other.db.damaged-12"));
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(fs::read(&left[0]).unwrap().starts_with(b"this is no database"));
    assert!(folder.join("other.db.damaged-12").exists(), "it belongs to somebody else");
}

#[tokio::test]
async fn a_file_of_another_version_says_what_to_do() {
    let (_folder, path) = folder();
    start(settings(&path)).end();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = open(settings(&path), Arc::new(directory())).unwrap_err();
    let text = Chain(&error).to_string();
    let advice = format!("run the version that wrote it, or move {} away", path.display());
    assert!(text.contains("it has format 7, this version knows 1") && text.contains(&advice), "{text}");
    assert!(set_aside(&path).is_empty(), "it is not damaged");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_at_the_start_is_tried_again_until_it_can() {
    let (_folder, path) = folder();
    let now = clock::wall().0;
    let holder = start(settings(&path));
    holder.write(temperature(7, now)).await;
    assert!(open(settings(&path), Arc::new(directory())).is_err(), "somebody else has it");
    let (keeper, archive, worker) = wait(settings(&path), Arc::new(directory()));
    let (runtime, troubled) = (Handle::current(), Gauge::default());
    let worker = worker.telling(troubled.clone());
    assert_eq!((keeper.is_open, troubled.get()), (false, 1));
    let first = keeper.recovered.seq + 1;
    let thread = std::thread::spawn(move || worker.run(&runtime));
    let mut store = Store { keeper, archive, thread };
    store.write(message(first, now, "press-1", &body(&[("temperature", 1.5)], Quality::Good))).await;
    holder.end();
    let news = timeout(Duration::from_secs(60), store.keeper.news.recv()).await.unwrap().unwrap();
    let News::Opened(recovered) = news else { panic!("{news:?}") };
    assert_eq!(recovered.seq, 7);
    let deadline = clock::instant() + Duration::from_secs(30);
    while troubled.get() != 0 {
        assert!(clock::instant() < deadline, "it is written");
        tokio::task::yield_now().await;
    }
    store.end();
    let store = start(settings(&path));
    assert_eq!(store.keeper.recovered.seq, first, "what came meanwhile is kept too");
    store.end();
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let (folder, _) = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(settings(&file.join("history.db")), Arc::new(directory())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", file.display()));
}

#[tokio::test]
async fn two_processes_do_not_share_a_file() {
    let (_folder, path) = folder();
    let store = start(settings(&path));
    store.write(temperature(1, clock::wall().0)).await;
    let error = open(settings(&path), Arc::new(directory())).unwrap_err();
    assert!(matches!(error, OpenError::Database { .. }), "{error:?}");
    assert!(set_aside(&path).is_empty(), "a file that is in use is not damaged");
    store.end();
}
