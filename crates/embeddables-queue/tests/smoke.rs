//! smoke
use embeddables_queue::*; use embeddables_queue::sqlite::*; use bytes::Bytes; use std::num::NonZeroUsize;
fn rec(l:&LaneName,i:u32)->NewRecord{NewRecord{lane:l.clone(),id:format!("id{i}").into(),fingerprint:[1;16],order_key:[2;16],accept_time:UnixMillis(5),payload:Bytes::from(format!("p{i}"))}}
#[tokio::test]
async fn smoke(){
 let d=tempfile::tempdir().unwrap(); let l=LaneName::new("a");
 let (q,r)=SqliteQueue::open(SqliteConfig::new(d.path(),vec![l.clone()])).unwrap(); println!("{r:?}");
 let a=q.append(Append{records:(0..10).map(|i|rec(&l,i)).collect(),durability:Durability::Fsynced,atomic:false}).await.unwrap(); println!("{a:?}");
 let a=q.append(Append{records:vec![rec(&l,3)],durability:Durability::Fsynced,atomic:true}).await.unwrap(); println!("{a:?}");
 let c=q.claim(&l,NonZeroUsize::new(4).unwrap(),UnixMillis(10)).await.unwrap(); println!("{c:?}");
 let mut s=vec![]; for (i,x) in c.leases.iter().enumerate(){ s.push(Settlement{sequence:x.sequence,claim:x.claim,disposition: match i {0=>Disposition::Delivered{time:UnixMillis(11),note:Bytes::from_static(b"n")},1=>Disposition::Wait{until:UnixMillis(50),progress:Bytes::from_static(b"pp")},2=>Disposition::DeadLetter{time:UnixMillis(11),reason:"r".into(),progress:Bytes::new()},_=>Disposition::Release}}) }
 q.settle(s).await.unwrap();
 println!("{:?}",q.books());
 for i in 0..5 { println!("{:?}", q.find(&l,&format!("id{i}")).await.unwrap()); }
 println!("{:?}", q.outcomes(0,10).await.unwrap()); println!("{:?}", q.list(None,Sequence(0),10).await.unwrap()); println!("{:?}",q.oldest().await.unwrap());
 let _c=q.claim(&l,NonZeroUsize::new(4).unwrap(),UnixMillis(10)).await.unwrap(); println!("{_c:?}");
 q.close().await;
 let (q,r)=SqliteQueue::open(SqliteConfig::new(d.path(),vec![l.clone()])).unwrap(); println!("{r:?}");
 let c=q.claim(&l,NonZeroUsize::new(40).unwrap(),UnixMillis(100)).await.unwrap(); println!("{c:?}");
 println!("{:?}",q.books());
}
