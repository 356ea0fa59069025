"""What a person looks at: masks drawn over their photos, and a page that shows a run."""
